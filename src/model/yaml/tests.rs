use super::document::MAX_BYTES;
use super::*;

fn parse(text: &str) -> Document {
    Document::parse(text).unwrap()
}

fn refusal(text: &str) -> String {
    Document::parse(text).unwrap_err().to_string()
}

/// The tree without layout, for comparison.
fn show(node: Node<'_>) -> String {
    match node.kind() {
        Kind::Null => "null".into(),
        Kind::Scalar => format!("{:?}", node.as_text().unwrap()),
        Kind::Mapping => {
            let entries: Vec<_> = node
                .entries()
                .map(|(key, value)| format!("{}: {}", show(key), show(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        Kind::Sequence => format!("[{}]", node.items().map(show).collect::<Vec<_>>().join(", ")),
    }
}

#[test]
fn flow_collections_need_no_indentation_of_their_own() {
    for text in
        ["a:\n  b: [\n  x,\n  y  # é\n  ]\n  c: 1\n", "a:\r\n  b: [\r\n  x\r\n  ]\r\n  c: 1\r\n"]
    {
        let parsed = parse(text);
        let reference: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
        let items = parsed.root().get("a").unwrap().get("b").unwrap().items();
        assert_eq!(items.len(), reference["a"]["b"].as_sequence().unwrap().len());
        let after = parsed.apply(&[Edit::set(["a", "c"], "2")]).unwrap();
        assert_eq!(after, text.replace("c: 1", "c: '2'"));
        let inside = parsed
            .apply(&[Edit::set(vec!["a".into(), "b".into(), Segment::Index(0)], "z")])
            .unwrap();
        assert_eq!(inside, text.replacen('x', "z", 1));
    }
    let strange = "a: {\n}\nc: [é,\n'd\n  e', {f: 1\n}]\na2: 1\n";
    let texts: Vec<_> = parse(strange)
        .root()
        .get("c")
        .unwrap()
        .items()
        .filter_map(|item| item.text().ok().map(str::to_owned))
        .collect();
    assert_eq!(texts, ["é", "d e"]);
    // What is wrong for other reasons is told where it is.
    let error = Document::parse("a:\n  b: [\n  x\n  ]\n c: 1\n").unwrap_err().to_string();
    assert!(error.starts_with("line "), "{error}");
}

#[test]
fn trees_and_spans_of_every_shape() {
    let cases = [
        (
            "a: 1  # c\nb:\n- x\n-   y: 1\n    z: 'q'  \n# tail\nc:\n  - d\n",
            r#"{"a": "1", "b": ["x", {"y": "1", "z": "q"}], "c": ["d"]}"#,
        ),
        (
            "e: |\n  lit\n  eral\n\n# x\nf: >-\n  fold\ng:\nh: ~\n",
            r#"{"e": "lit\neral\n", "f": "fold", "g": null, "h": null}"#,
        ),
        (
            "a: &x {b: 1, c: [1, 2,], d}\ne: *x\n",
            r#"{"a": {"b": "1", "c": ["1", "2"], "d": null}, "e": {"b": "1", "c": ["1", "2"], "d": null}}"#,
        ),
        (
            "f: &y\n  g: 1\nh: !!str 5\ni: &z\nj:\n- &k l\n- !t\n  m: 1\nk: !t &u 5\n",
            r#"{"f": {"g": "1"}, "h": "5", "i": null, "j": ["l", {"m": "1"}], "k": "5"}"#,
        ),
        (
            "é: \"ü\\n\"  # ö\r\n'b': 1 # ü\r\n? c\r\n: d\r\n? e\r\n",
            r#"{"é": "ü\n", "b": "1", "c": "d", "e": null}"#,
        ),
        (
            "- - a\n  - b\n-\n  # note\n  - c\n- d:\n  e: 1\n-\n- \n",
            r#"[["a", "b"], ["c"], {"d": null, "e": "1"}, null, null]"#,
        ),
        (
            "{a: 1,\n b: ,c: 'x' , ? y : z, \"q\":r, e: }",
            r#"{"a": "1", "b": null, "c": "x", "y": "z", "q": "r", "e": null}"#,
        ),
        (
            "a: multi\n  line\n\n  plain  # c\nb: \"dq\n  more\"\nc: [a: b, {c: d}, e: ]\n",
            r#"{"a": "multi line\nplain", "b": "dq more", "c": [{"a": "b"}, {"c": "d"}, {"e": null}]}"#,
        ),
        ("\u{feff}a: b\n", r#"{"a": "b"}"#),
        ("%YAML 1.2\n---\na: b\n...\n", r#"{"a": "b"}"#),
        ("--- a\n", r#""a""#),
        ("", "null"),
        ("# only\n", "null"),
        ("---\n", "null"),
        ("a: |\nb: |+\n  y\n\n\nc: |2\n   z", r#"{"a": "", "b": "y\n\n\n", "c": " z\n"}"#),
        ("'a''b': 'c''d'\n\"e\\\"\": \"f\\\\\"\n", r#"{"a'b": "c'd", "e\"": "f\\"}"#),
        (
            "v: 1.40\nw: '~'\nx: yes\ny: \"\"\nz: NULL\n",
            r#"{"v": "1.40", "w": "~", "x": "yes", "y": "", "z": null}"#,
        ),
        ("a: !reset null\nb: !override\n- x\nc: ! y\n", r#"{"a": null, "b": ["x"], "c": "y"}"#),
        ("[]", "[]"),
        ("? [a, b]\n: c\n? {d: e}\n: f\n", r#"{["a", "b"]: "c", {"d": "e"}: "f"}"#),
        (": v\n", r#"{null: "v"}"#),
        ("a: # c\n  # d\n  b: 1\n", r#"{"a": {"b": "1"}}"#),
        (
            "a:\n  'x': 'y' # ü ü ü\n  é: 'z' # ü\n  b: [é, 'ü', \"ö\"] # ü\n  c: 1\n",
            r#"{"a": {"x": "y", "é": "z", "b": ["é", "ü", "ö"], "c": "1"}}"#,
        ),
    ];
    for (text, expected) in cases {
        match Document::parse(text) {
            Ok(document) => assert_eq!(show(document.root()), expected, "{text:?}"),
            Err(error) => panic!("{text:?}: {error}"),
        }
    }
}

#[test]
fn an_anchor_on_its_own_line_leaves_the_tag_below_to_the_first_key() {
    for text in [
        "a: &a\n  !!merge <<: {b: 1}\n  c: 2\n",
        "a: !!map\n  &k b: 1\n  c: 2\n",
        "a: &a !!map # c\n  !!str b: 1\n  c: 2\n",
        "- &a\n  &b b: &c\n    !!str c: &d 1\n",
    ] {
        second_reader_agrees(&text.replace("!!merge ", ""));
        let document = parse(text);
        assert_eq!(show(document.root()), show(parse(&text.replace("!!merge ", "")).root()));
    }
}

#[test]
fn merged_mappings_are_read_as_one() {
    let text = "x: &x\n  !!merge <<: [&y {a: y, b: y}, {b: z, c: z, <<: {d: deep}}]\n  e: x\n\
                it: &it {<<: *x, a: own, <: no}\n";
    let document = parse(text);
    let it = document.root().get("it").unwrap();
    let entries: Vec<String> = it
        .merged_entries()
        .into_iter()
        .map(|(key, value)| format!("{}={}", key.text().unwrap(), value.text().unwrap()))
        .collect();
    assert_eq!(entries, ["a=own", "<=no", "e=x", "b=y", "c=z", "d=deep"]);
    for (key, value) in it.merged_entries() {
        assert_eq!(it.get(key.text().unwrap()).unwrap().span(), value.span());
    }
    assert!(document.check_merges().is_ok());
    for (wrong, line) in [("a: 1\n<<: x", 2), ("<<: ", 1), ("a:\n  b: {<<: [{}, 1]}", 2)] {
        let error = parse(wrong).check_merges().unwrap_err();
        assert_eq!(error.line, line, "{wrong:?}: {error}");
    }
    let endless = parse("a: &a\n  <<: *a\n  b: 1\n");
    assert_eq!(endless.root().get("a").unwrap().merged_entries().len(), 1);
    assert!(endless.root().get("a").unwrap().get("c").is_none());
}

#[test]
fn tags_are_told() {
    let text = "a: !reset null\nb: &x !override # why\n  - 1\nc: !reset\nd: !a &y {}\ne: &z v\n\
                f: '!no'\ng: *x\nh: !<tag:x,2000:y> z\n";
    let document = parse(text);
    let tags: Vec<Option<&str>> = document.root().entries().map(|(_, value)| value.tag()).collect();
    let expected = [
        Some("!reset"),
        Some("!override"),
        Some("!reset"),
        Some("!a"),
        None,
        None,
        None,
        Some("!<tag:x,2000:y>"),
    ];
    assert_eq!(tags, expected);
}

/// Applies edits and checks that an independent reader sees what this one sees.
fn edited(text: &str, edits: &[Edit]) -> String {
    let result = parse(text).apply(edits).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    second_reader_agrees(&result);
    result
}

fn second_reader_agrees(text: &str) {
    // The second reader counts a byte order mark as a column.
    let seen: serde_yaml::Value = serde_yaml::from_str(text.trim_start_matches('\u{feff}'))
        .unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert!(agree(parse(text).root(), &seen), "{text:?}: {seen:?}");
}

fn agree(node: Node<'_>, seen: &serde_yaml::Value) -> bool {
    use serde_yaml::Value;
    match seen {
        Value::Null => node.is_null(),
        Value::Bool(value) => node.boolean() == Ok(*value),
        Value::Number(_) => node.is_plain(),
        Value::String(text) => node.as_text() == Some(text),
        Value::Sequence(items) => {
            node.items().len() == items.len()
                && node.items().zip(items).all(|(node, seen)| agree(node, seen))
        }
        Value::Mapping(entries) => {
            node.entries().len() == entries.len()
                && node
                    .entries()
                    .zip(entries)
                    .all(|((key, node), (name, seen))| agree(key, name) && agree(node, seen))
        }
        Value::Tagged(tagged) => agree(node, &tagged.value),
    }
}

fn compare(text: &str, edits: &[Edit], expected: &str) {
    assert_eq!(edited(text, edits), expected, "{text:?}");
}

fn steps(path: &str) -> Vec<Segment> {
    let step =
        |step: &str| step.parse::<usize>().map_or_else(|_| Segment::from(step), Segment::from);
    path.split('.').filter(|step| !step.is_empty()).map(step).collect()
}

fn set(path: &str, value: impl Into<Value>) -> Edit {
    Edit::set(steps(path), value)
}

fn entry(tag: &str) -> Value {
    Value::mapping([("tag", Value::text(tag)), ("status", "current".into())])
}

#[test]
fn scalars_keep_quotes_and_comments() {
    let cases = [
        ("a: 1.63  # c\nb: x\n", "a: '1.64'  # c\nb: x\n"),
        ("a: '1.63' # c\n", "a: '1.64' # c\n"),
        ("a: \"1.63\"# c\n", ""),
        ("a: \"1.63\" # c\n", "a: \"1.64\" # c\n"),
        ("a:\nb: x\n", "a: '1.64'\nb: x\n"),
        ("a: # c\nb: x\n", "a: '1.64' # c\nb: x\n"),
        ("a: ~ # c", "a: '1.64' # c"),
        ("a: |  # c\n  x\n  y\n\nb: x\n", "a: '1.64' # c\n\nb: x\n"),
        ("a: >-\n  x\n  y\n# d\nb: x\n", "a: '1.64'\n# d\nb: x\n"),
        ("a: |+\n  x\n\nb: x\n", "a: '1.64'\nb: x\n"),
        ("a: plain\n  more # c\nb: x\n", "a: '1.64' # c\nb: x\n"),
        ("a: 'q\n\n  more' # c\r\nb: x\r\n", "a: '1.64' # c\r\nb: x\r\n"),
        ("{a: 1, b: 2}", "{a: '1.64', b: 2}"),
        ("{a: , b: 2}", "{a: '1.64' , b: 2}"),
        ("{a, b: 2}", "{a: '1.64', b: 2}"),
        ("{\"a\":1,\"b\":2}", "{\"a\":\"1.64\",\"b\":2}"),
        ("{b: 'ü', a: 'é' }", "{b: 'ü', a: '1.64' }"),
        ("\u{feff}a: x\n", "\u{feff}a: '1.64'\n"),
        ("a: !!str x # c\n", "a: !!str '1.64' # c\n"),
        ("a: &unused x # c\n", "a: &unused '1.64' # c\n"),
        ("a:\n  b: 1\n  # in\n# out\nc: 2\n", "a: '1.64'\n# out\nc: 2\n"),
        ("a:\n- x\n- y\nc: 2\n", "a: '1.64'\nc: 2\n"),
        ("a: # why\n  - x\n", "a: '1.64' # why\n"),
        ("a: [x,\n  y] # why\n", "a: '1.64' # why\n"),
        ("b: 1\n", "b: 1\na: '1.64'\n"),
        ("b: 1", "b: 1\na: '1.64'\n"),
        ("b: 1 # x\n# tail\n", "b: 1 # x\na: '1.64'\n# tail\n"),
        ("", "a: '1.64'\n"),
        ("# only\n", "# only\na: '1.64'\n"),
        ("# only", "# only\na: '1.64'\n"),
        ("---\n", "---\na: '1.64'\n"),
        ("{}\n", "a: '1.64'\n"),
        ("{ } # c\n", "a: '1.64' # c\n"),
        ("{b: 1}\n", "{b: 1, a: '1.64'}\n"),
        ("{ b: 1 }\n", "{ b: 1, a: '1.64' }\n"),
        ("{b: 1,}\n", "{b: 1, a: '1.64',}\n"),
        ("{\n  b: 1, # c\n}\n", "{\n  b: 1, # c\n  a: '1.64',\n}\n"),
        ("{\n  b: 1 # c\n}\n", "{\n  b: 1, # c\n  a: '1.64'\n}\n"),
        ("{\n  b: 1,\n  c: 2\n}\n", "{\n  b: 1,\n  c: 2,\n  a: '1.64'\n}\n"),
        ("{\"b\": 1}\n", "{\"b\": 1, \"a\": \"1.64\"}\n"),
        ("b: |+\n  x\n\n", "b: |+\n  x\n\na: '1.64'\n"),
        ("b: |\n  x\n", "b: |\n  x\na: '1.64'\n"),
        ("b:\n  c: 1\n  # in b\n# out\n", "b:\n  c: 1\n  # in b\na: '1.64'\n# out\n"),
        ("b:\n- c\n", "b:\n- c\na: '1.64'\n"),
        ("b: \"x\"\r\n", "b: \"x\"\r\na: \"1.64\"\r\n"),
    ];
    for (text, expected) in cases {
        if expected.is_empty() {
            assert!(Document::parse(text).is_err(), "{text:?}");
            continue;
        }
        compare(text, &[set("a", "1.64")], expected);
    }
}

fn keep(index: usize) -> Item {
    Item::Keep(index, Vec::new())
}

#[test]
fn a_release_is_put_in_front_of_every_layout() {
    let cases = [
        (
            // PyYAML's own
            "h:\n  svc:\n  - tag: '1'\n    status: current\n  - tag: '0'\n    status: previous # \
                c\n  other:\n  - tag: x\n",
            "h:\n  svc:\n  - tag: '2'\n    status: current\n  - tag: '1'\n    status: previous\n  \
                - tag: '0'\n    status: previous # c\n  other:\n  - tag: x\n",
        ),
        (
            // indented, comments, blank lines
            "h:\n  svc: # newest first\n\n    # known good\n    - tag: '1'\n      status: current \
                # now\n      # inner\n\n    # older\n    - tag: '0'\n      status: previous\n    \
                # for other\n  other: []\n",
            "h:\n  svc: # newest first\n\n    - tag: '2'\n      status: current\n\n    # known \
                good\n    - tag: '1'\n      status: previous # now\n      # inner\n\n    # \
                older\n    - tag: '0'\n      status: previous\n    # for other\n  other: []\n",
        ),
        (
            // flow items
            "h:\n  svc:\n  - {tag: '1', status: current}  # c\n  - { tag: '0', status: previous \
                }\n",
            "h:\n  svc:\n  - {tag: '2', status: current}\n  - {tag: '1', status: previous}  # \
                c\n  - { tag: '0', status: previous }\n",
        ),
        (
            // one line
            "h: {svc: [{tag: 1, status: current}, {tag: 0, status: x}], b: []}\n",
            "h: {svc: [{tag: '2', status: current}, {tag: 1, status: previous}, {tag: 0, status: \
                x}], b: []}\n",
        ),
        (
            // JSON over lines
            "{\n  \"h\": {\n    \"svc\": [\n      {\"tag\": \"1\", \"status\": \"current\"}, \
                // \n      {\"tag\": \"0\", \"status\": \"x\"}\n    ]\n  }\n}\n",
            "",
        ),
        (
            "{\n  \"h\": {\n    \"svc\": [\n      {\"tag\": \"1\", \"status\": \"current\"}, # \
                c\n      {\"tag\": \"0\", \"status\": \"x\"}  # d\n    ]\n  }\n}\n",
            "{\n  \"h\": {\n    \"svc\": [\n      \
                {\"tag\": \"2\", \"status\": \"current\"},\n      \
                {\"tag\": \"1\", \"status\": \"previous\"}, # c\n      \
                {\"tag\": \"0\", \"status\": \"x\"}  # d\n    ]\n  }\n}\n",
        ),
        (
            // CRLF, no final line break
            "h:\r\n  svc:\r\n  -   tag: \"1\"\r\n      status: current\r\n  -   \
                tag: \"0\"\r\n      status: x",
            "h:\r\n  svc:\r\n  -   tag: \"2\"\r\n      status: current\r\n  -   \
                tag: \"1\"\r\n      status: previous\r\n  -   tag: \"0\"\r\n      status: x\r\n",
        ),
    ];
    for (text, expected) in cases {
        if expected.is_empty() {
            assert!(Document::parse(text).is_err(), "{text:?}");
            continue;
        }
        let kept = Item::Keep(0, vec![set("status", "previous")]);
        compare(
            text,
            &[Edit::rearrange(["h", "svc"], vec![Item::New(entry("2")), kept, keep(1)])],
            expected,
        );
    }
}

#[test]
fn lists_are_created_where_nothing_is() {
    let cases = [
        ("a: 1\n", "a: 1\nh:\n  svc:\n  - tag: '2'\n    status: current\n"),
        ("h:\na: 1\n", "h:\n  svc:\n  - tag: '2'\n    status: current\na: 1\n"),
        ("h: {} # c\na: 1\n", "h: # c\n  svc:\n  - tag: '2'\n    status: current\na: 1\n"),
        ("h:\n  b: 1\na: 1\n", "h:\n  b: 1\n  svc:\n  - tag: '2'\n    status: current\na: 1\n"),
        (
            "h:\n  b: [{x: y}]\na: 1\n",
            "h:\n  b: [{x: y}]\n  svc: [{tag: '2', status: current}]\na: 1\n",
        ),
        (
            "h:\n  b:\n  - {x: y}\na: 1\n",
            "h:\n  b:\n  - {x: y}\n  svc:\n  - {tag: '2', status: current}\na: 1\n",
        ),
        (
            "h:\n    b:\n        - x: y\na: 1\n",
            "h:\n    b:\n        - x: y\n    svc:\n        - tag: '2'\n          status: \
                current\na: 1\n",
        ),
        ("h: {b: 1}\n", "h: {b: 1, svc: [{tag: '2', status: current}]}\n"),
        ("h:\n  svc:\n  b: 1\n", "h:\n  svc:\n  - tag: '2'\n    status: current\n  b: 1\n"),
        (
            "h:\n  svc: ~ # c\n  b: 1\n",
            "h:\n  svc: # c\n  - tag: '2'\n    status: current\n  b: 1\n",
        ),
        (
            "h:\n  svc: [] # c\n  b: 1\n",
            "h:\n  svc: # c\n  - tag: '2'\n    status: current\n  b: 1\n",
        ),
        ("h: {svc: []}\n", "h: {svc: [{tag: '2', status: current}]}\n"),
        (
            "h:\n  svc:\n    old: x\n    # in\n  b: 1\n",
            "h:\n  svc:\n  - tag: '2'\n    status: current\n  b: 1\n",
        ),
    ];
    for (text, expected) in cases {
        compare(text, &[set("h.svc", Value::Sequence(vec![entry("2")]))], expected);
    }
    compare(
        "h:\n  svc:\n",
        &[Edit::rearrange(["h", "svc"], vec![Item::New("x".into())])],
        "h:\n  svc:\n  - x\n",
    );
    compare(
        "h: {x: y}\n",
        &[set("h.a", Value::Sequence(vec![entry("1")]))],
        "h: {x: y, a: [{tag: '1', status: current}]}\n",
    );
}

#[test]
fn keys_and_items_go_with_their_own_comments_only() {
    let remove = |path: &str| Edit::remove(steps(path));
    let cases = [
        ("# head\na: 1\n# of b\nb: 2\n# of c\nc: 3\n", "a", "# head\n# of b\nb: 2\n# of c\nc: 3\n"),
        ("# head\na: 1\n# of b\nb: 2 # x\n# of c\nc: 3\n", "b", "# head\na: 1\n# of c\nc: 3\n"),
        (
            "a: 1\n# apart\n\n# of b\nb:\n  c: 2\n  # in b\n\n# of c\nc: 3\n",
            "b",
            "a: 1\n# apart\n\n\n# of c\nc: 3\n",
        ),
        ("a: 1\nb: 2", "b", "a: 1\n"),
        ("a: 1\n", "a", "{}\n"),
        ("x:\n  a: 1\ny: 2\n", "x.a", "x: {}\ny: 2\n"),
        ("x:\n  # c\n  a: 1\n  b: 2\n", "x.a", "x:\n  # c\n  b: 2\n"),
        ("x:\n- a: 1 # c\n  b: 2\n  c: 3\n", "x.0.a", "x:\n- b: 2\n  c: 3\n"),
        ("x:\n- a: 1\n  b: 2\n", "x.0.b", "x:\n- a: 1\n"),
        ("x: {a: 1, b: 2, c: 3}\n", "x.a", "x: {b: 2, c: 3}\n"),
        ("x: {a: 1, b: 2, c: 3}\n", "x.b", "x: {a: 1, c: 3}\n"),
        ("x: {a: 1, b: 2, c: 3}\n", "x.c", "x: {a: 1, b: 2}\n"),
        ("x: {a: 1}\n", "x.a", "x: {}\n"),
        (
            "x: {\n  a: 1, # a\n  # of b\n  b: 2, # b\n  c: 3 # c\n}\n",
            "x.b",
            "x: {\n  a: 1, # a\n  c: 3 # c\n}\n",
        ),
        ("x: {\n  a: 1, # a\n  c: 3 # c\n}\n", "x.c", "x: {\n  a: 1 # a\n}\n"),
        ("x:\n- a\n# of b\n- b # b\n- c\n", "x.1", "x:\n- a\n- c\n"),
        (
            "x:\n  - a\n\n  # apart\n\n  # of b\n  - b\n    # in b\n  - c\n",
            "x.1",
            "x:\n  - a\n\n  # apart\n\n  - c\n",
        ),
        (
            "x:\n  - a\n\n  # apart\n\n  # of b\n  - b\ny: 1\n",
            "x.1",
            "x:\n  - a\n\n  # apart\ny: 1\n",
        ),
        ("x:\n- a\n", "x.0", "x: []\n"),
        ("x: [a, b, c]\n", "x.0", "x: [b, c]\n"),
        ("- - a\n  - b\n- c\n", "0.0", "- - b\n- c\n"),
        ("x: 1\n", "y.z", "x: 1\n"),
        ("x: |\n  a\n\ny: 1\n", "x", "\ny: 1\n"),
    ];
    for (text, path, expected) in cases {
        compare(text, &[remove(path)], expected);
    }
}

#[test]
fn new_keys_follow_their_siblings() {
    let service =
        "s:\n  # the router\n  a: # c\n    image: x # i\n    held: true\n\n  b:\n    image: y\n";
    compare(
        service,
        &[Edit::set_own(["s", "a", "track"], "latest", "image")],
        "s:\n  # the router\n  a: # c\n    image: x # i\n    track: latest\n    held: true\n\n  \
            b:\n    image: y\n",
    );
    compare(
        service,
        &[set("s.a.note", "hi"), set("s.c.image", "z"), set("t", true)],
        "s:\n  # the router\n  a: # c\n    image: x # i\n    held: true\n    note: hi\n\n  \
            b:\n    image: y\n  c:\n    image: z\nt: true\n",
    );
    compare(
        "s: {a: 1, b: 2}\n",
        &[Edit::set_own(["s", "x"], "latest", "a")],
        "s: {a: 1, x: latest, b: 2}\n",
    );
    compare(
        "s:\n- a: 1\n- b: 2\n",
        &[set("s.0.c", true), set("s.1.b", false)],
        "s:\n- a: 1\n  c: true\n- b: false\n",
    );
    compare(
        "\"s\":\n  \"a\": \"1\"\n",
        &[set("s.b", "2")],
        "\"s\":\n  \"a\": \"1\"\n  \"b\": \"2\"\n",
    );
    compare("s:\n- a: 1\n", &[set("s.0", "x")], "s:\n- x\n");
    compare(
        "s:\n- x # c\n- y\n",
        &[set("s.0", "z"), set("s.1", entry("1"))],
        "s:\n- z # c\n- tag: '1'\n  status: current\n",
    );
    compare("a: 1\nb: 2\n", &[Edit::remove(["a"]), Edit::remove(["b"]), set("c", "3")], "c: '3'\n");
    compare("a: 1\nb: 2\n", &[Edit::remove(["b"]), set("c", "3")], "a: 1\nc: '3'\n");
    compare("a: 1\nb: 2\n", &[Edit::remove(["a"]), set("c", "3")], "b: 2\nc: '3'\n");
}

#[test]
fn edits_through_aliases_anchors_and_merges_are_refused() {
    let text = "base: &base\n  image: x\n  env: &env [a]\na: *base\nb:\n  <<: *base\n  tag: 1\nc: \
        {env: *env}\n? d\n: e\nf: 1\ng: !t\n  x: 1\n";
    let cases = [
        (vec![set("base.image", "y")], "line 2, column 3: this is repeated elsewhere"),
        (vec![set("a", "y")], "line 4, column 4: this is an alias"),
        (vec![set("a.image", "y")], "line 4, column 4: this is an alias"),
        (vec![set("b.image", "y")], "line 6, column 3: `image` comes from a merge key"),
        (vec![Edit::remove(["b", "image"])], "line 6, column 3: `image` comes from a merge key"),
        (vec![set("c.env.0", "y")], "line 8, column 10: this is an alias"),
        (vec![Edit::remove(["base"])], "line 1, column 7: an alias elsewhere names this anchor"),
        (vec![set("d", "y")], "line 9, column 3: an entry whose key is written with `?`"),
        (vec![set("f.x", "y")], "line 11, column 4: text stands where"),
        (
            vec![set("f", "x"), set("f.x", "y")],
            "line 1, column 1: two edits contradict each other at `f.x`",
        ),
        (vec![set("g", "x")], "line 13, column 3: a list or mapping with an anchor or tag"),
        (vec![Edit::rearrange(["f"], vec![])], "line 11, column 4: expected a list, found text"),
        (
            vec![Edit::rearrange(["c", "new"], vec![keep(0)])],
            "line 8, column 4: there is no item 0 to keep",
        ),
    ];
    for (edits, expected) in cases {
        let error = parse(text).apply(&edits).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{edits:?}: {error}");
    }
    assert_eq!(parse(text).root().get("b").unwrap().get("image").unwrap().text(), Ok("x"));
    assert!(
        edited(text, &[set("b.tag", "2"), set("c.x", "hi")])
            .contains("  <<: *base\n  tag: '2'\nc: {env: *env, x: hi}\n")
    );
}

#[test]
#[allow(clippy::disallowed_methods, reason = "it measures")]
fn hostile_documents_are_refused_quickly() {
    let started = std::time::Instant::now();
    let nested = [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        format!("a:\n  b: {}", "[".repeat(100_000)),
        format!(
            "# it's\n'a''b': \"c\\\" [\" # [\nd: it's\nx: |\n  [ ' \"\n\ny:\n- {}",
            "[".repeat(100_000)
        ),
        format!("x: plain\n  [ ' \"\n--- {}", "[{".repeat(100_000)),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
        (0..100_000)
            .map(|_| "a:\n")
            .enumerate()
            .fold(String::new(), |text, (depth, line)| text + &" ".repeat(depth.min(100)) + line),
    ];
    for text in &nested {
        let message = refusal(text);
        assert!(
            message.contains("nested deeper than 64 levels") || message.contains("second document"),
            "{message}"
        );
    }
    let bomb: String = (1..60)
        .map(|level| {
            format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(","))
        })
        .collect();
    assert_eq!(parse(&format!("a0: &a0 x\n{bomb}")).root().entries().len(), 60);
    let merges: String = (1..60)
        .map(|level| format!("a{level}: &a{level}\n  <<: [*a{0}, *a{0}]\n", level - 1))
        .collect();
    assert!(
        parse(&format!("a0: &a0 {{x: 1}}\n{merges}"))
            .root()
            .get("a59")
            .unwrap()
            .get("nowhere")
            .is_none()
    );
    let cyclic = parse("a: &a\n  <<: *a\n  b: *a\n");
    assert!(cyclic.root().get("a").unwrap().get("b").unwrap().get("b").unwrap().get("c").is_none());
    assert!(
        refusal(&"#".repeat(MAX_BYTES + 1))
            .starts_with("line 1, column 1: the file is 16777217 bytes long")
    );
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn what_is_nested_deep_enough_is_accepted() {
    for text in ["[".repeat(64) + &"]".repeat(64), "- ".repeat(64) + "x"] {
        parse(&text);
    }
    parse(&format!(
        "a: |\n{}b: >\n{}",
        "  if [ \"$x\" = '[' ]; then echo \\033[0m it's {\n".repeat(100),
        "  - [ {\n".repeat(100)
    ));
    parse(&format!("a: [it's, {}b]\n", "a[0, ".replace('[', "").repeat(100)));
}

#[test]
fn errors_have_line_and_column() {
    let cases: &[(&str, &str)] = &[
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "line 5, column 3: duplicate key `c`"),
        ("a: {x: 1, 'x': 2}\n", "line 1, column 11: duplicate key `'x'`"),
        ("é: 'ü' # ö\r\ni: 1\r\né: 2\r\n", "line 3, column 1: duplicate key `é`"),
        (
            "a: b\n---\nc: d\n",
            "line 2, column 1: a second document begins here, only one is expected",
        ),
        ("a: b\nü: \"x\0y\"\n", "line 2, column 6: a NUL character"),
        ("a: [b\nc: d\n", "line 2, column"),
        ("a: b: c\n", "line 1, column 5: mapping values are not allowed"),
        ("a: *x\n", "line 1, column 4: "),
    ];
    for (text, expected) in cases {
        assert!(refusal(text).starts_with(expected), "{text:?}: {}", refusal(text));
    }
    let many: String = (0..40).map(|number| format!("key{}: x\n", number % 39)).collect();
    assert_eq!(refusal(&many), "line 40, column 1: duplicate key `key0`");
    assert_eq!(
        Document::parse_bytes(b"a: 1\n\xc3\xa9\xff").unwrap_err().to_string(),
        "line 2, column 2: the file is not valid UTF-8 here"
    );
    let document = parse("a: 1\nb: {c: [x], d: , e: 1.40, f: 'yes', g: yes}\n");
    let node = |key| document.root().get("b").unwrap().get(key).unwrap();
    assert_eq!(
        node("c").text().unwrap_err().to_string(),
        "line 2, column 8: expected text, found a list"
    );
    assert_eq!(node("d").text().unwrap_err().message, "expected text, found null");
    assert_eq!(node("e").text(), Ok("1.40"));
    assert_eq!((node("g").boolean(), node("f").boolean().is_err()), (Ok(true), true));
    assert_eq!(node("e").mapping().unwrap_err().message, "expected a mapping, found text");
}

#[test]
fn quotes_only_where_a_reader_needs_them() {
    let quoted = [
        "",
        "~",
        "null",
        "Null",
        "yes",
        "No",
        "on",
        "y",
        "TRUE",
        "1",
        "-1",
        "+1",
        "1.64",
        "1.",
        ".5",
        "1e3",
        "12e45",
        "1_000",
        "0x1F",
        "0o17",
        "0b1",
        "012",
        "08",
        "1:30",
        "1:30.5",
        ".inf",
        "-.INF",
        ".nan",
        "2026-01-12",
        "2026-1-2 3:04:05",
        "2026-01-12T12:29:08Z",
        "<<",
        "=",
        " a",
        "a ",
        "a: b",
        "a:",
        "a #b",
        "#a",
        "- a",
        "-",
        "? a",
        "?",
        ":",
        ": a",
        "*a",
        "&a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "'a",
        "\"a",
        "[a",
        "{a",
        "]",
        "}",
        ",a",
        "---",
        "--- a",
        "...",
        "a\nb",
        "a\tb",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
    ];
    let plain = [
        "a",
        "latest",
        "1.2.3",
        "1.35-hotfix-customer123",
        "v1.64",
        "sha256:cbd9",
        "repo:1.42@sha256:ab",
        "a#b",
        "a:b",
        "it's",
        "é",
        "-a",
        "2026-01-12-rc1",
        "2026.01.12",
        "e3",
        "0xg",
        "10.0.0.1",
        "1.64-",
        "customer patch",
        "a, b",
        "x[0]",
        "_",
        "?a",
        ".",
        "<",
        "😀",
    ];
    for text in quoted {
        let line = emit(&Value::mapping([("k", Value::text(text))]));
        assert!(line.starts_with("k: '") || line.starts_with("k: \""), "{line}");
        second_reader_agrees(&line);
        assert_eq!(parse(&line).root().get("k").unwrap().text(), Ok(text));
        assert!(
            serde_yaml::from_str::<serde_yaml::Value>(&line).unwrap()["k"].is_string(),
            "{line}"
        );
    }
    for text in plain {
        let line = emit(&Value::mapping([("k", Value::text(text))]));
        assert_eq!(line, format!("k: {text}\n"));
        assert_eq!(
            serde_yaml::from_str::<serde_yaml::Value>(&line).unwrap()["k"].as_str(),
            Some(text)
        );
    }
    compare("{a: z}\n", &[set("a", "x:1"), set("b", "x, y")], "{a: 'x:1', b: 'x, y'}\n");
}

#[test]
fn a_new_document_looks_like_pyyaml_wrote_it() {
    let entries = Value::Sequence(vec![entry("1.64"), entry("1.63")]);
    let document = Value::mapping([
        ("schema_version", "1.1".into()),
        ("customer_id", "".into()),
        ("ecr", Value::mapping([("use_private", false.into()), ("port", "5000".into())])),
        ("history", Value::mapping([("req_router", entries), ("none", Value::Sequence(vec![]))])),
        ("custom_overrides", Value::mapping::<&str>([])),
    ]);
    let expected = "schema_version: '1.1'
customer_id: ''
ecr:
  use_private: false
  port: '5000'
history:
  req_router:
  - tag: '1.64'
    status: current
  - tag: '1.63'
    status: current
  none: []
custom_overrides: {}
";
    assert_eq!(emit(&document), expected);
    second_reader_agrees(expected);
}

#[test]
fn of_several_documents_each_is_edited_by_itself() {
    let text = "# top\r\na: {b: &one 1} # first\r\n---   # second\r\na:\r\n  b: 'x'\r\n  # own\r\n...\r\n\r\n\
        --- !!map\r\na: {b: *one, c: |-\r\n  --- no document\r\n}\r\n---\r\na:\r\n  b: y\r\n";
    let text = text.replace("c: |-\r\n  --- no document\r\n", "c: '--- no document'");
    let all = Document::parse_all(text.as_bytes()).unwrap();
    let of = |all: &Document, key: &str| -> Vec<String> {
        let values = all.roots().map(|root| root.get("a")?.get(key)?.as_text());
        values.map(|value| value.unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(of(&all, "b"), ["1", "x", "1", "y"]);
    assert_eq!(of(&all, "c"), ["", "", "--- no document", ""]);
    let lines: Vec<usize> = all.roots().map(|root| root.position().line).collect();
    assert_eq!(lines, [2, 4, 10, 12]);
    let edits = [
        Edit::set(["a", "b"], "2").in_document(3),
        Edit::set(["a", "b"], "3").in_document(1),
        Edit::set_own(["a", "new"], "z", "b").in_document(1),
    ];
    let new = all.apply(&edits).unwrap();
    let expected = text
        .replace("b: 'x'\r\n  # own", "b: '3'\r\n  new: z\r\n  # own")
        .replace("b: y", "b: '2'");
    assert_eq!(new, expected);
    // A change of one is no reason to lose another.
    let gone = expected.replace("---   # second\r\na:\r\n", "  z:\r\n");
    let plans = plan::plan(&all, &edits).unwrap();
    assert!(verify::verify(&all, &plans, &new).is_ok());
    for wrong in [gone, new.replace("'--- no", "'---no"), new.clone() + "---\r\na: 1\r\n"] {
        assert!(verify::verify(&all, &plans, &wrong).is_err(), "{wrong}");
    }
    for (text, nulls) in [
        ("---\n---\na: 1\n", [true, false].as_slice()),
        ("a: 1\n---\n", &[false, true]),
        ("a: 1\n---\n# nothing\n...\n", &[false, true]),
        ("# only\n---\na: 1\n...\n", &[false]),
        ("a: 1\n...\nb: 2\n", &[false, false]),
        ("", &[true]),
    ] {
        let all = Document::parse_all(text.as_bytes()).unwrap();
        let found: Vec<bool> = all.roots().map(Node::is_null).collect();
        assert_eq!(found, nulls, "{text:?}");
    }
}

#[test]
fn a_result_that_differs_is_never_written() {
    let old = parse("a: 'x'\nb: &n [1, 2]\nc: *n\nd: {e: f}\n");
    let wrong = [
        "a: 'y'\nb: &n [1, 2]\nc: *n\nd: {e: f}\n",
        "a: x\nb: &n [1, 2]\nc: *n\nd: {e: f}\n",
        "a: 'x'\nb: &n [1]\nc: *n\nd: {e: f}\n",
        "a: 'x'\nb: &m [1, 2]\nc: *m\nd: {e: f}\n",
        "a: 'x'\nb: &n [1, 2]\nc: [1, 2]\nd: {e: f}\n",
        "a: 'x'\nb: &n [1, 2]\nc: *n\nd:\n  e: f\n",
        "a: 'x'\nb: &n [1, 2]\nc: *n\nd: {g: f}\n",
        "a: 'x'\nb: &n [1, 2]\nc: *n\nd: {e: !t f}\n",
        "a: 'x'\nb: &n [1, 2]\nc: *n\n",
        "a: 'x'\nb: &n [1, 2]\nc: *n\nd: {e: f\n",
    ];
    assert_eq!(verify::verify(&old, &[plan::Plan::Same], old.source()), Ok(()));
    for text in wrong {
        let error = verify::verify(&old, &[plan::Plan::Same], text).unwrap_err();
        assert!(error.message.starts_with("refusing to write"), "{text:?}: {error}");
    }
    let number = plan::plan(&old, &[set("a", "1.40")]).unwrap();
    assert!(verify::verify(&old, &number, "a: 1.40\nb: &n [1, 2]\nc: *n\nd: {e: f}\n").is_err());
}

mod random {
    use proptest::prelude::*;

    use super::*;

    /// A document with its layout, from which text is written in one of many ways.
    #[derive(Debug, Clone)]
    enum Tree {
        Scalar(&'static str),
        Mapping(Vec<Tree>, bool),
        Sequence(Vec<Tree>, bool),
    }

    const SCALARS: [&str; 14] = [
        "x",
        "'1.64'",
        "\"ü\\n\"",
        "",
        "~",
        "1.40",
        "a b",
        "'it''s'",
        "|\n      lit\n       eral",
        ">-\n      fold\n\n      ed",
        "true",
        "plain\n      more",
        "{}",
        "[]",
    ];

    const TOKENS: [&str; 39] = [
        "a: ", "b:", "c: ", "\n", "\n", "\n", "\n  ", "\n  ", "\n    ", "\n- ", "\n  - ", "- ",
        "[", "]", "{", "}", ", ", ",", "x", "'q'", "\"d\"", " # c", "|", ">", "|+", "&a ", "*a",
        "!t ", "? ", ": ", "~", "é", "\r\n", "<<: ", "---", "...", " ", "1.40", "\u{feff}",
    ];

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = prop::sample::select(&SCALARS[..]).prop_map(Tree::Scalar);
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                (prop::collection::vec(inner.clone(), 1..5), prop::bool::weighted(0.3))
                    .prop_map(|(items, flow)| Tree::Mapping(items, flow)),
                (prop::collection::vec(inner, 1..5), prop::bool::weighted(0.3))
                    .prop_map(|(items, flow)| Tree::Sequence(items, flow)),
            ]
        })
    }

    /// Writes trees with random comments, blank lines and indentation.
    struct Writer<'c> {
        out: String,
        choices: &'c [u8],
        next: usize,
    }

    impl Writer<'_> {
        fn choose(&mut self, of: u8) -> u8 {
            self.next += 1;
            self.choices[self.next % self.choices.len()] % of
        }

        fn push_one_of(&mut self, texts: &[&str]) {
            let number = self.choose(texts.len() as u8);
            self.out.push_str(texts[number as usize]);
        }

        fn comment(&mut self) {
            if self.choose(3) == 0 {
                self.push_one_of(&["  # ü c", " # [", "  # '"]);
            }
        }

        fn lines(&mut self, column: usize) {
            match self.choose(6) {
                0 => self.out.push('\n'),
                1 => self.out.push_str(&format!("{}# own é\n", " ".repeat(column))),
                2 => self.out.push_str("# far\n\n"),
                _ => {}
            }
        }

        fn flow(&mut self, tree: &Tree) {
            let (items, mapping) = match tree {
                Tree::Scalar(text) => {
                    let text = if text.contains("\n ") { "x" } else { text };
                    return self.out.push_str(text);
                }
                Tree::Mapping(items, _) => (items, true),
                Tree::Sequence(items, _) => (items, false),
            };
            self.out.push(if mapping { '{' } else { '[' });
            for (number, item) in items.iter().enumerate() {
                self.push_one_of(&["", " ", "\n         ", " # c, ]\n         "]);
                if mapping {
                    self.out.push_str(&format!("k{number}: "));
                }
                self.flow(if !mapping && matches!(item, Tree::Scalar("" | "~")) {
                    &Tree::Scalar("x")
                } else {
                    item
                });
                let last = number + 1 == items.len();
                if !last || self.choose(4) == 0 {
                    self.push_one_of(&[",", " ,", ","]);
                }
            }
            self.push_one_of(&["", " ", "\n         ", " # c\n         "]);
            self.out.push(if mapping { '}' } else { ']' });
        }

        /// What stands behind `key:` or `-`; the output ends with a line break afterwards.
        fn value(&mut self, tree: &Tree, column: usize, behind_dash: bool) {
            match tree {
                Tree::Scalar(text) if text.contains("\n ") => {
                    let text = text.replace("\n      ", &format!("\n{}", " ".repeat(column + 3)));
                    self.out.push_str(&format!(" {text}\n"));
                }
                Tree::Scalar(text) => {
                    self.out.push_str(&format!(" {text}"));
                    self.comment();
                    self.out.push('\n');
                }
                Tree::Mapping(_, true) | Tree::Sequence(_, true) => {
                    self.out.push(' ');
                    self.flow(tree);
                    self.comment();
                    self.out.push('\n');
                }
                Tree::Mapping(items, false) => {
                    let inner = column + 2;
                    let shared = behind_dash && self.choose(4) > 0;
                    if shared {
                        self.out.push(' ');
                    } else {
                        self.comment();
                        self.out.push('\n');
                    }
                    self.mapping(items, inner, shared);
                }
                Tree::Sequence(items, false) => {
                    let inner =
                        if behind_dash || self.choose(2) == 0 { column + 2 } else { column };
                    let shared = behind_dash && self.choose(4) > 0;
                    if shared {
                        self.out.push(' ');
                    } else {
                        self.comment();
                        self.out.push('\n');
                    }
                    for (number, item) in items.iter().enumerate() {
                        if number > 0 || !shared {
                            self.lines(inner);
                            self.out.push_str(&" ".repeat(inner));
                        }
                        self.out.push('-');
                        self.value(item, inner, true);
                    }
                }
            }
        }

        fn mapping(&mut self, items: &[Tree], column: usize, shared: bool) {
            for (number, item) in items.iter().enumerate() {
                if number > 0 || !shared {
                    self.lines(column);
                    self.out.push_str(&" ".repeat(column));
                }
                let key =
                    [format!("k{number}:"), format!("'k{number}':"), format!("\"k{number}\" :")];
                self.push_one_of(&key.each_ref().map(String::as_str));
                self.value(item, column, false);
            }
        }
    }

    fn document() -> impl Strategy<Value = String> {
        (prop::collection::vec(tree(), 1..5), prop::collection::vec(any::<u8>(), 30..60), 0u8..4)
            .prop_map(|(items, choices, form)| {
                let mut writer = Writer { out: String::new(), choices: &choices, next: 0 };
                writer.lines(0);
                writer.mapping(&items, 0, false);
                let text = writer.out;
                match form {
                    0 => text.replace('\n', "\r\n"),
                    1 => format!("\u{feff}{text}"),
                    // Readers disagree about the last line of a block scalar that has no line
                    // break.
                    2 if !text.ends_with("eral\n") && !text.ends_with("ed\n") => {
                        text.trim_end_matches('\n').to_owned()
                    }
                    _ => text,
                }
            })
    }

    /// All paths of a document that lead through no alias and no key but text.
    fn paths(node: Node<'_>, prefix: &[Segment], all: &mut Vec<Vec<Segment>>) {
        let children = match node.kind() {
            _ if node.is_alias() => Vec::new(),
            Kind::Mapping => node
                .entries()
                .filter_map(|(key, value)| Some((Segment::from(key.as_text()?), value)))
                .collect(),
            _ => {
                node.items().enumerate().map(|(index, item)| (Segment::from(index), item)).collect()
            }
        };
        for (segment, child) in children {
            let path = [prefix, &[segment]].concat();
            all.push(path.clone());
            paths(child, &path, all);
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::text("1.65")),
            Just(Value::text("new text")),
            Just(Value::text("a\nb")),
            Just(Value::Bool(true)),
            Just(entry("2")),
            Just(Value::Sequence(vec![entry("3"), "x".into()])),
            Just(Value::Sequence(vec![])),
        ]
    }

    fn reads_alike(text: &str) -> bool {
        serde_yaml::from_str(text.trim_start_matches('\u{feff}'))
            .is_ok_and(|seen| agree(parse(text).root(), &seen))
    }

    /// Whatever is read can be edited or is refused, and what both readers read alike they still
    /// do.
    fn edit_everywhere(text: &str) {
        let Ok(parsed) = Document::parse(text) else { return };
        let mut all = Vec::new();
        paths(parsed.root(), &[], &mut all);
        for path in all {
            let inside = [path.as_slice(), &["added".into()]].concat();
            let edits = [
                Edit::set(path.clone(), "1"),
                Edit::set(path.clone(), entry("1")),
                Edit::set(inside, Value::Sequence(vec!["x".into()])),
                Edit::rearrange(path.clone(), vec![Item::New("1".into()), keep(0)]),
                Edit::rearrange(path.clone(), vec![Item::New(entry("1"))]),
                Edit::remove(path),
            ];
            for edit in edits {
                if let Ok(result) = parsed.apply(std::slice::from_ref(&edit))
                    && reads_alike(text)
                {
                    assert!(reads_alike(&result), "{edit:?} of {text:?} gave {result:?}");
                }
            }
        }
    }

    #[test]
    fn an_empty_text_that_keeps_its_line_breaks_ends_before_the_next_item() {
        for text in [
            "\n  - |+\n  - ",
            "- |+\n- a\n",
            "- >+\n\n- a\n- b\n",
            "a: |+\nb: 1\n",
            "a:\n- |+\nb: 1\n",
            "a:\n  - |+\n\n  - >-\n  - c\n",
        ] {
            edit_everywhere(text);
        }
    }

    #[test]
    fn a_key_on_several_lines_gets_no_value() {
        for text in ["{x\nx}", "{x\r\nx, y: 1}", "{a: 1, 'q\nr'}", "{? x\nx}"] {
            edit_everywhere(text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn generated_documents_are_read_alike(text in document()) {
            second_reader_agrees(&text);
        }

        /// Setting, adding, removing and rearranging one thing: the editor proves the content
        /// itself, so it must not refuse, and comments elsewhere must survive.
        #[test]
        fn one_edit_changes_one_thing(text in document(), pick in any::<prop::sample::Index>(), what in 0u8..5, value in value()) {
            let parsed = parse(&text);
            let mut all = Vec::new();
            paths(parsed.root(), &[], &mut all);
            let mut path = pick.get(&all).clone();
            let node = path.iter().fold(parsed.root(), |node, segment| match segment {
                Segment::Key(key) => node.get(key).unwrap(),
                Segment::Index(index) => node.items().nth(*index).unwrap(),
            });
            let adds = what == 1 && matches!(node.kind(), Kind::Mapping | Kind::Null);
            let edit = match (what, node.kind()) {
                (0, _) => Edit::remove(path),
                (1, Kind::Mapping | Kind::Null) => {
                    path.push("added".into());
                    Edit::set(path, value)
                }
                (2, Kind::Sequence) => {
                    let count = node.items().len();
                    let mut items: Vec<_> = (0..count).rev().map(keep).collect();
                    items.insert(count / 2, Item::New(value));
                    Edit::rearrange(path, items)
                }
                (3, Kind::Sequence) => {
                    let mut items = vec![Item::New(value)];
                    items.extend((0..node.items().len().min(2)).map(keep));
                    Edit::rearrange(path, items)
                }
                _ => Edit::set(path, value),
            };
            match parsed.apply(std::slice::from_ref(&edit)) {
                Ok(result) => {
                    second_reader_agrees(&result);
                    prop_assert_eq!(result.contains("\r\n"), text.contains("\r\n"));
                    prop_assert!(!result.replace("\r\n", "").contains('\r'));
                    if adds {
                        prop_assert!(result.matches('#').count() >= text.matches('#').count(), "{:?} of {:?} gave {:?}", edit, text, result);
                    }
                }
                Err(error) => {
                    let allowed = ["leaves no room", "leave no room"];
                    prop_assert!(allowed.iter().any(|reason| error.message.contains(reason)), "{:?} of {}: {}", edit, text, error);
                }
            }
        }

        /// Many edits at once make what they make one after the other.
        #[test]
        fn edits_together_are_edits_in_turn(
            text in document(),
            picks in prop::collection::vec((any::<prop::sample::Index>(), 0u8..3, value()), 2..7),
        ) {
            let parsed = parse(&text);
            let mut all = Vec::new();
            paths(parsed.root(), &[], &mut all);
            let edits: Vec<_> = picks.into_iter().enumerate().map(|(number, (pick, what, value))| {
                let path = pick.get(&all);
                match what {
                    // An index would mean another item after an earlier removal.
                    0 if matches!(path.last(), Some(Segment::Key(_))) => Edit::remove(path.clone()),
                    1 => Edit::set([&path[..path.len() - 1], &[format!("new{number}").as_str().into()]].concat(), value),
                    _ => Edit::set(path.clone(), value),
                }
            }).collect();
            let together = match parsed.apply(&edits) {
                Ok(together) => together,
                Err(error) => {
                    let allowed = ["contradict", "no room", "expected a mapping, found a \
                        list", "expected a list"];
                    prop_assert!(allowed.iter().any(|reason| error.message.contains(reason)), "{:?} of {}: {}", edits, text, error);
                    return Ok(());
                }
            };
            second_reader_agrees(&together);
            let in_turn = edits.iter().try_fold(text.clone(), |text, edit| parse(&text).apply(std::slice::from_ref(edit)));
            if let Ok(in_turn) = in_turn {
                prop_assert_eq!(show(parse(&together).root()), show(parse(&in_turn).root()), "{:?} of {}", edits, text);
            }
        }

        /// New scalars for scalars: every byte outside them stays.
        #[test]
        fn scalars_change_in_place(text in document(), pick in any::<prop::sample::Index>()) {
            let parsed = parse(&text);
            let mut all = Vec::new();
            paths(parsed.root(), &[], &mut all);
            let at = |path: &[Segment]| path.iter().fold(parsed.root(), |node, segment| match segment {
                Segment::Key(key) => node.get(key).unwrap(),
                Segment::Index(index) => node.items().nth(*index).unwrap(),
            });
            all.retain(|path| matches!(at(path).style(), Some(Style::Plain | Style::Single | Style::Double)));
            prop_assume!(!all.is_empty());
            let path = pick.get(&all);
            let span = at(path).span();
            let result = parsed.apply(&[Edit::set(path.clone(), "changed")]).unwrap();
            prop_assert!(result.starts_with(&text[..span.start]) && result.ends_with(&text[span.end..]), "{:?}: {:?}", text, result);
            prop_assert!(result.len() <= text.len() - span.len() + "'changed'".len());
        }

        #[test]
        fn odd_documents_are_edited_or_refused(text in prop::collection::vec(prop::sample::select(&TOKENS[..]), 0..25)) {
            edit_everywhere(&text.concat());
        }

        #[test]
        fn any_text_survives(text in any::<String>(), flow in any::<bool>()) {
            let line = match flow {
                // No document can be edited to have it.
                true if text.contains('\0') => return Ok(()),
                true => edited("{k: x}\n", &[set("k", text.as_str())]),
                false => emit(&Value::mapping([("k", Value::text(text.as_str()))])),
            };
            if !text.contains('\0') {
                let read = parse(&line);
                prop_assert_eq!(read.root().get("k").unwrap().text(), Ok(text.as_str()));
            }
            let seen: serde_yaml::Value = serde_yaml::from_str(&line).unwrap();
            prop_assert_eq!(seen["k"].as_str(), Some(text.as_str()));
        }
    }
}

/// Positions come from a table of the lines, and are those that counting from the beginning gives.
#[test]
fn positions_are_those_of_a_count() {
    for text in [
        "a: 1\nb: 2\r\nc: 3\rd: \u{e9}x\n",
        "\u{feff}a: 1\n",
        "",
        "a",
        "\n\n\r\n\r",
        "a: [1,\r\n 2]\r\n",
    ] {
        let Ok(document) = Document::parse(text) else { continue };
        let source = document.source();
        let starts = source.char_indices().map(|(at, _)| at).chain([source.len()]);
        let inside =
            |at: &usize| !source[..*at].ends_with('\r') || !source[*at..].starts_with('\n');
        for at in starts.filter(inside) {
            let counted = super::document::position(source, at);
            assert_eq!(document.position(at), counted, "{text:?} at {at}");
        }
    }
}

/// Whoever asks where every node stands does not walk the document for each: the lines are counted
/// once.
#[test]
fn positions_of_all_nodes_cost_one_walk() {
    let document = Document::parse("a: 1\nb: 2\nc: 3\n").unwrap();
    assert!(document.lines.get().is_none());
    let first = document.root().position();
    let table = document.lines.get().map(Vec::as_ptr);
    let lines: Vec<usize> = document.root().entries().map(|(key, _)| key.position().line).collect();
    assert_eq!((first.line, lines), (1, vec![1, 2, 3]));
    assert!(table.is_some() && table == document.lines.get().map(Vec::as_ptr));
}
