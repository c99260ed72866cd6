//! Progress of images: bars on a terminal, a line per event elsewhere; and tables that are redrawn
//! in place.

use std::sync::{Mutex, OnceLock, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Stream, Style, Table, Ui, format, sanitize_line};

/// How far an image is.
#[derive(Debug, Clone, Copy, Default)]
pub struct ItemProgress<'a> {
    /// Bytes that are here.
    pub current_bytes: u64,
    /// Bytes in all, as far as known; 0 for unknown.
    pub total_bytes: u64,
    /// Layers that are here.
    pub layers_done: usize,
    /// Layers in all, as far as known; 0 for unknown.
    pub layers_total: usize,
    /// What is going on: `resolving`, `downloading`, `extracting`.
    pub phase: &'a str,
}

/// The progress of several images.
#[derive(Debug)]
pub struct Progress {
    ui: Ui,
    doing: String,
    done: String,
    /// Shown from the first image on, because whatever is printed in between redraws every bar.
    overall: OnceLock<Option<ProgressBar>>,
    /// As many images as there can be.
    at_most: usize,
    /// Whether the number of images is not known before they begin.
    grows: bool,
}

/// The progress of one image. Dropped without an outcome, it vanishes.
#[derive(Debug)]
#[must_use = "an item that is dropped is no longer shown"]
pub struct Item {
    ui: Ui,
    name: String,
    done: String,
    bar: Option<ProgressBar>,
    overall: Option<ProgressBar>,
}

impl Ui {
    /// Shows the progress of `total` images, in words like `Pulling` and `Pulled`.
    #[must_use]
    pub fn progress(&self, doing: &str, done: &str, total: usize) -> Progress {
        let mut progress = self.growing_progress(doing, done, total);
        progress.grows = false;
        if let Some(bar) = progress.overall() {
            bar.tick();
        }
        progress
    }

    /// As [`Ui::progress`], where images turn up one by one, `at_most` so many; shows nothing
    /// before the first.
    #[must_use]
    pub fn growing_progress(&self, doing: &str, done: &str, at_most: usize) -> Progress {
        Progress {
            ui: self.clone(),
            doing: doing.to_owned(),
            done: done.to_owned(),
            overall: OnceLock::new(),
            at_most,
            grows: true,
        }
    }

    /// A block of lines that is redrawn in place; see [`Live`].
    #[must_use]
    pub fn live(&self) -> Live {
        Live { ui: self.clone(), drawn: Mutex::default() }
    }

    /// What is drawn in place, if anything may be.
    fn bars(&self) -> Option<&MultiProgress> {
        (self.redraws() && !self.shared.settings.quiet).then(|| {
            self.shared
                .bars
                .get_or_init(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
        })
    }

    fn bar_style(&self, plain: &str, colored: &str) -> ProgressStyle {
        let template = if self.colored(Stream::Stderr) { colored } else { plain };
        ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸─")
    }
}

impl Progress {
    /// The bar that sums several images up; one image needs no sum.
    fn overall(&self) -> Option<&ProgressBar> {
        let begin =
            || {
                let bars = self.ui.bars().filter(|_| self.at_most > 1)?;
                let total = if self.grows { 0 } else { self.at_most };
                let bar = bars.add(ProgressBar::new(total as u64));
                bar.set_style(self.ui.bar_style(
                    "{msg} {bar:24} {pos}/{len}",
                    "{msg:.bold} {bar:24.green} {pos}/{len}",
                ));
                bar.set_message(self.doing.clone());
                Some(bar)
            };
        self.overall.get_or_init(begin).as_ref()
    }

    /// Takes the sum away, though images may still be on their way.
    pub fn clear(&self) {
        if let Some(Some(overall)) = self.overall.get() {
            overall.finish_and_clear();
        }
    }

    /// Begins with an image.
    pub fn item(&self, service: &str, tag: &str) -> Item {
        let name = sanitize_line(&format!("{service} {tag}"));
        let overall = self.overall();
        if let Some(overall) = overall.filter(|_| self.grows) {
            overall.inc_length(1);
        }
        let bar = self.ui.bars().map(|bars| {
            let bar = ProgressBar::new(1);
            let bar = match overall {
                Some(overall) => bars.insert_before(overall, bar),
                None => bars.add(bar),
            };
            bar.set_style(self.ui.bar_style(
                "{prefix} {bar:24} {wide_msg}",
                "{prefix:.bold} {bar:24.cyan} {wide_msg}",
            ));
            bar.set_prefix(format!("{name:<24}"));
            bar.tick();
            bar
        });
        if bar.is_none() {
            self.ui.status(format!("{} {name}", self.doing));
        }
        Item { ui: self.ui.clone(), name, done: self.done.clone(), bar, overall: overall.cloned() }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Item {
    /// Shows how far the image is; only where there is a bar.
    pub fn update(&self, progress: ItemProgress<'_>) {
        let Some(bar) = &self.bar else { return };
        bar.set_length(progress.total_bytes.max(1));
        bar.set_position(progress.current_bytes.min(progress.total_bytes));
        bar.set_message(details(progress));
    }

    /// Says that the image is done; `details` may be empty.
    pub fn done(self, details: &str) {
        self.clear();
        let details = if details.is_empty() { String::new() } else { format!(" ({details})") };
        self.ui.step(&self.done, format!("{}{details}", self.name));
    }

    /// Says that the image failed, and why.
    pub fn failed(self, reason: &str) {
        self.clear();
        self.ui.act("Failed", Style::Red, &format!("{}: {reason}", self.name));
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(overall) = &self.overall {
            overall.inc(1);
        }
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `downloading 3.1 MB/12.3 MB, layer 2/4`, without what is unknown.
fn details(progress: ItemProgress<'_>) -> String {
    let mut details = sanitize_line(progress.phase);
    if progress.total_bytes > 0 {
        details += &format!(
            " {}/{}",
            format::bytes(progress.current_bytes),
            format::bytes(progress.total_bytes)
        );
    }
    if progress.layers_total > 0 {
        details += &format!(", layer {}/{}", progress.layers_done, progress.layers_total);
    }
    details
}

/// A table that is redrawn in place on a terminal; elsewhere only lines that changed are printed.
/// It is gone from the terminal when this is dropped.
#[derive(Debug)]
pub struct Live {
    ui: Ui,
    drawn: Mutex<Drawn>,
}

#[derive(Debug, Default)]
struct Drawn {
    lines: Vec<String>,
    bars: Vec<ProgressBar>,
}

impl Live {
    /// Shows the table as it is now.
    pub fn show(&self, table: &Table) {
        if self.ui.shared.settings.quiet {
            return;
        }
        let lines = table.lines(self.ui.colored(Stream::Stderr));
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        match self.ui.bars() {
            Some(bars) => draw(bars, &mut drawn.bars, &lines),
            None => changed(&drawn.lines, &lines).for_each(|line| self.ui.talk(line)),
        }
        drawn.lines = lines;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let drawn = self.drawn.get_mut().unwrap_or_else(PoisonError::into_inner);
        drawn.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// Makes the block show these lines, one bar that is all text for each.
fn draw(bars: &MultiProgress, block: &mut Vec<ProgressBar>, lines: &[String]) {
    block.drain(lines.len().min(block.len())..).for_each(|bar| bar.finish_and_clear());
    while block.len() < lines.len() {
        let bar = bars.add(ProgressBar::new(1));
        bar.set_style(
            ProgressStyle::with_template("{wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        block.push(bar);
    }
    for (bar, line) in block.iter().zip(lines) {
        bar.set_message(line.clone());
    }
}

/// The lines that were not there before; one that only moved up or down says nothing new.
fn changed<'a>(before: &'a [String], now: &'a [String]) -> impl Iterator<Item = &'a String> {
    now.iter().filter(|line| !before.contains(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_leave_out_what_is_unknown() {
        let known = ItemProgress {
            current_bytes: 3_100_000,
            total_bytes: 12_300_000,
            layers_done: 2,
            layers_total: 4,
            phase: "downloading",
        };
        assert_eq!(details(known), "downloading 3.1 MB/12.3 MB, layer 2/4");
        assert_eq!(
            details(ItemProgress { phase: "resolving", ..ItemProgress::default() }),
            "resolving"
        );
    }

    #[test]
    fn only_changed_lines_are_told_again() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let told = |before: &str, now: &str| {
            changed(&lines(before), &lines(now)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(told("a b c", "a x c d"), ["x", "d"]);
        assert_eq!(told("a b c", "c a d b"), ["d"]);
        assert!(told("a b", "a").is_empty());
    }
}
