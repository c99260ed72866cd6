//! Styled text in aligned columns. Written out here because the table crates draw borders, wrap
//! and query the terminal, and none of that is wanted.

use unicode_width::UnicodeWidthStr as _;

use super::sanitize::sanitize_line;

/// How a piece of text looks, where colour is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// As everything else.
    #[default]
    Plain,
    /// Stands out.
    Bold,
    /// Steps back.
    Dim,
    /// All is well.
    Green,
    /// Worth a look.
    Yellow,
    /// Wrong.
    Red,
    /// A name among other text.
    Cyan,
    /// A name among other names.
    Blue,
    /// A name among other names.
    Magenta,
}

impl Style {
    /// The sequence that turns the style on (ECMA-48, select graphic rendition).
    fn start(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\u{1b}[1m",
            Self::Dim => "\u{1b}[2m",
            Self::Green => "\u{1b}[32m",
            Self::Yellow => "\u{1b}[33m",
            Self::Red => "\u{1b}[31m",
            Self::Cyan => "\u{1b}[36m",
            Self::Blue => "\u{1b}[34m",
            Self::Magenta => "\u{1b}[35m",
        }
    }

    /// The text, which must be sanitised already, in this style if `color` is on.
    pub(super) fn paint(self, text: &str, color: bool) -> String {
        if color && self != Self::Plain && !text.is_empty() {
            format!("{}{text}\u{1b}[0m", self.start())
        } else {
            text.to_owned()
        }
    }
}

/// One line of text in one style; sanitised by construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell with the text in `style`.
    #[must_use]
    pub fn new(text: impl ToString, style: Style) -> Self {
        Self { text: sanitize_line(&text.to_string()), style }
    }

    /// A cell as everything else looks.
    #[must_use]
    pub fn plain(text: impl ToString) -> Self {
        Self::new(text, Style::Plain)
    }

    /// The cell's text, in its style if `color` is on.
    pub(super) fn render(&self, color: bool) -> String {
        self.style.paint(&self.text, color)
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::plain(text)
    }
}

/// Rows of cells in columns, each as wide as its widest cell, two blanks apart.
#[derive(Debug, Clone, Default)]
pub struct Table {
    header: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with column titles; without any, it has no title line.
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        Self {
            header: header.iter().map(|title| Cell::new(title, Style::Bold)).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it may have fewer cells than others, or more.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, titles first, without trailing blanks.
    #[must_use]
    pub fn lines(&self, color: bool) -> Vec<String> {
        let header = std::iter::once(&self.header).filter(|header| !header.is_empty());
        let rows = header.chain(&self.rows);
        let mut widths = Vec::new();
        for row in rows.clone() {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        rows.map(|row| line(row, &widths, color)).collect()
    }
}

/// One row; empty cells at its end leave no trace.
fn line(row: &[Cell], widths: &[usize], color: bool) -> String {
    let mut line = String::new();
    let mut gap = 0;
    for (cell, width) in row.iter().zip(widths) {
        if !cell.text.is_empty() {
            line.extend(std::iter::repeat_n(' ', gap));
            line.push_str(&cell.render(color));
            gap = 0;
        }
        gap += width - cell.text.width() + 2;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["SERVICE", "TAG", "STATE"]);
        table.row(["web".into(), "1.42".into(), Cell::new("healthy", Style::Green)]);
        table.row(["設定".into(), "1".into(), "".into()]);
        table.row(["x".into(), "".into(), "exited".into()]);
        let expected = [
            "SERVICE  TAG   STATE",
            "web      1.42  healthy",
            "設定     1",
            "x              exited",
        ];
        assert_eq!(table.lines(false), expected);
    }

    #[test]
    fn colour_changes_no_column() {
        let mut table = Table::default();
        table.row([Cell::new("a", Style::Red), Cell::new("b", Style::Bold)]);
        table.row(["long".into(), "c".into(), "d".into()]);
        assert_eq!(
            table.lines(true),
            ["\u{1b}[31ma\u{1b}[0m     \u{1b}[1mb\u{1b}[0m", "long  c  d"]
        );
        assert_eq!(table.lines(false), ["a     b", "long  c  d"]);
    }

    #[test]
    fn cells_are_one_clean_line() {
        let mut table = Table::default();
        table.row(["1.42\nforged\u{1b}[2J".into(), "x".into()]);
        assert_eq!(table.lines(false), ["1.42 forged  x"]);
    }

    #[test]
    fn an_empty_table_has_only_titles() {
        assert_eq!(Table::new(&["A", "B"]).lines(false), ["A  B"]);
        assert!(Table::default().lines(false).is_empty());
    }
}
