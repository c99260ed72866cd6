//! The walls between the modules, who may touch what, held by reading the sources.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Paths that only some modules may name.
struct Wall {
    rule: &'static str,
    /// The wall is around these modules; every module when empty. A name ending in `/` is a
    /// directory.
    around: &'static [&'static [&'static str]],
    /// Modules that may, each because the house says so.
    except: &'static [&'static str],
    /// Segments of a path, `fs::write`, wherever they stand in it; a method with its dot and its
    /// parentheses, `.exists()`.
    forbidden: &'static [&'static str],
}

const PURE: &[&str] = &["model.rs", "model/", "plan.rs", "plan/", "report.rs", "report/"];

/// Rules that judge what was observed: pure too, but of types that live where they are observed.
const RULES: &[&str] = &[
    "data.rs",
    "drift.rs",
    "drift/",
    "followers.rs",
    "health.rs",
    "health/chain.rs",
    "health/explain.rs",
    "health/watch.rs",
    "identity.rs",
    "pin.rs",
    "pin/",
    "runtime.rs",
    "update.rs",
    "update/",
];

const WALLS: &[Wall] = &[
    Wall {
        // The functions of the standard library that reach outside are clippy's to find.
        rule: "model, plan, report and the rules do no I/O: time, user and environment are \
            arguments",
        around: &[PURE, RULES],
        except: &[],
        forbidden: &[
            "tokio",
            "reqwest",
            "tempfile",
            "std::fs",
            "TcpStream",
            "UdpSocket",
            "ToSocketAddrs",
        ],
    },
    Wall {
        rule: "model, plan and report import nothing above them",
        around: &[PURE],
        except: &[],
        forbidden: &[
            "crate::app",
            "crate::cli",
            "crate::commands",
            "crate::compose",
            "crate::docker",
            "crate::entry",
            "crate::logs",
            "crate::registry",
            "crate::store",
            "crate::ui",
            "crate::update",
        ],
    },
    Wall {
        rule: "the rules know no command, no terminal and no files",
        around: &[RULES],
        except: &[],
        forbidden: &["crate::cli", "crate::commands", "crate::store", "crate::ui"],
    },
    Wall {
        rule: "only docker knows bollard",
        around: &[],
        except: &["docker.rs", "docker/"],
        forbidden: &["bollard"],
    },
    Wall {
        rule: "only registry/ speaks HTTP to registries",
        around: &[],
        except: &["registry/"],
        forbidden: &["reqwest", "aws_config", "aws_sdk_ecr", "aws_sdk_ecrpublic"],
    },
    Wall {
        rule: "only registry/ and docker open sockets",
        around: &[],
        except: &["registry/", "docker.rs", "docker/"],
        forbidden: &["TcpStream", "UnixStream", "UdpSocket"],
    },
    Wall {
        rule: "only cli.rs reads the environment",
        around: &[],
        except: &["cli.rs", "cli/", "entry.rs"],
        forbidden: &[
            "env::var",
            "env::vars",
            "env::var_os",
            "env::vars_os",
            "env::args",
            "env::args_os",
            "env::current_dir",
            "env::home_dir",
        ],
    },
    Wall {
        rule: "only store.rs writes deployment files",
        around: &[],
        // Not deployment files: logs/ and .version-backups/data/ are archives of what containers
        // hold.
        except: &["store.rs", "store/", "logs.rs", "logs/", "backup.rs", "backup/"],
        forbidden: &[
            "fs::write",
            "fs::rename",
            "fs::copy",
            "fs::hard_link",
            "fs::remove_file",
            "fs::remove_dir",
            "fs::remove_dir_all",
            "fs::create_dir",
            "fs::create_dir_all",
            "fs::set_permissions",
            "File::create",
            "File::create_new",
            "OpenOptions",
            "NamedTempFile",
        ],
    },
    Wall {
        rule: "only store reads files whole: no more than fits, and nothing that is no file",
        around: &[],
        // What Compose and zstd are given piece by piece, and trees of data, are no such files.
        except: &["store.rs", "store/"],
        forbidden: &["fs::read", "fs::read_to_string", "io::read_to_string"],
    },
    Wall {
        rule: "only store looks at files: a look that fails is not the same as nothing there",
        around: &[],
        except: &["store.rs", "store/"],
        forbidden: &[
            ".canonicalize()",
            ".exists()",
            ".try_exists()",
            "Path::exists",
            "Path::is_dir",
            "Path::is_file",
            "PathBuf::exists",
            "fs::canonicalize",
            "fs::exists",
        ],
    },
    Wall {
        rule: "only store looks at files, but for what archives containers and their data",
        around: &[],
        except: &["store.rs", "store/", "logs/archive.rs", "backup.rs", "backup/"],
        forbidden: &[
            ".is_dir()",
            ".is_file()",
            ".is_symlink()",
            ".read_dir()",
            "File::open",
            "fs::metadata",
            "fs::read_dir",
            "fs::symlink_metadata",
        ],
    },
    Wall {
        rule: "only ui.rs prints",
        around: &[],
        // Compose's own output is handed on to standard error, unread.
        except: &["ui.rs", "ui/", "compose.rs", "compose/"],
        forbidden: &["io::stdout", "io::stderr"],
    },
];

#[test]
fn every_module_stays_behind_its_walls() {
    let mut breaches = Vec::new();
    for (name, text) in sources() {
        breaches.extend(breaches_of(WALLS, &name, &text));
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

/// What the lint forbids stands in `.clippy.toml`; without this line it forbids nothing.
#[test]
fn modules_of_rules_deny_what_reaches_outside() {
    let roots =
        ["drift", "health", "identity", "members", "model/mod", "pin", "plan", "report", "update"];
    for root in roots {
        let file = format!("{root}.rs");
        let text = sources().into_iter().find(|(name, _)| *name == file).unwrap().1;
        assert!(text.contains("\n#![deny(clippy::disallowed_methods)]\n"), "{file}");
    }
}

#[test]
fn a_breach_of_each_wall_is_noticed() {
    for wall in WALLS {
        let inside = wall.around.first().map_or("commands/pull.rs", |modules| modules[0]);
        let module =
            if inside.ends_with('/') { format!("{inside}some.rs") } else { inside.to_owned() };
        for path in wall.forbidden {
            if path.starts_with('.') {
                let called = format!("fn f() {{\n    x\n        {path};\n}}\n");
                assert!(
                    !breaches_of(std::slice::from_ref(wall), &module, &called).is_empty(),
                    "{path} in {module}: {}",
                    wall.rule
                );
                continue;
            }
            let named = format!("fn f() {{\n    {path}::x();\n}}\n");
            assert!(
                !breaches_of(std::slice::from_ref(wall), &module, &named).is_empty(),
                "{path} in {module}: {}",
                wall.rule
            );
            let (head, tail) = path.rsplit_once("::").unwrap_or(("outer", path));
            let imported = format!("use {head}::{{self, other::{{x, y}}, {tail}}};\n");
            assert!(
                !breaches_of(std::slice::from_ref(wall), &module, &imported).is_empty(),
                "{imported} in {module}: {}",
                wall.rule
            );
            for door in wall.except {
                let door =
                    if door.ends_with('/') { format!("{door}some.rs") } else { (*door).to_owned() };
                assert!(
                    breaches_of(std::slice::from_ref(wall), &door, &named).is_empty(),
                    "{door} may: {}",
                    wall.rule
                );
            }
        }
    }
}

#[test]
fn comments_and_unit_tests_are_free() {
    let text = "//! Unlike std::fs this is pure.\n/// Not `tokio::spawn`.\nfn f() {} // bollard\n\
                #[cfg(test)]\nmod tests {\n    use std::fs;\n    fn f() { std::env::var(\"x\"); \
                }\n}\n";
    assert_eq!(breaches_of(WALLS, "model/some.rs", text), Vec::<String>::new());

    let declared =
        "#[cfg(test)]\n#[allow(unused)]\nmod real_tests;\nfn f() { std::fs::read(\"x\"); }\n";
    assert_eq!(
        test_files(Path::new("src/model/mod.rs"), declared),
        [Path::new("src/model/real_tests.rs")]
    );
    assert_eq!(
        test_files(Path::new("src/docker.rs"), declared),
        [Path::new("src/docker/real_tests.rs")]
    );
    assert_ne!(breaches_of(WALLS, "model/mod.rs", declared), Vec::<String>::new());
}

#[test]
fn lints_that_keep_the_terminal_in_ui_are_lifted_nowhere_else() {
    for (name, text) in sources() {
        let lifted = text.contains("clippy::print_stdout") || text.contains("clippy::print_stderr");
        assert!(
            !lifted || name == "ui.rs" || name.starts_with("ui/"),
            "{name} lifts the lint on printing"
        );
    }
}

#[test]
fn readme_help_and_code_have_the_same_exit_codes() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let code = read("src/error.rs");
    let mut kinds: Vec<(u8, String)> = Vec::new();
    for line in code.lines().map(str::trim) {
        let Some((kind, code)) =
            line.strip_prefix("Self::").and_then(|line| line.split_once(" => "))
        else {
            continue;
        };
        kinds.push((code.trim_end_matches(',').parse().unwrap(), kind.to_owned()));
    }
    let declared = code.split_once("pub enum Kind {").unwrap().1.split_once("\n}").unwrap().0;
    let declared: Vec<&str> =
        declared.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(',')).collect();
    assert_eq!(kinds.iter().map(|(_, kind)| kind.as_str()).collect::<Vec<_>>(), declared);

    let table: Vec<(u8, String)> = read("README.md")
        .lines()
        .skip_while(|line| *line != "### Exit codes")
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .filter_map(|(code, meaning)| Some((code.parse().ok()?, meaning.to_owned())))
        .collect();
    let codes: Vec<u8> = table.iter().map(|(code, _)| *code).collect();
    assert_eq!(
        codes,
        [&[0], kinds.iter().map(|(code, _)| *code).collect::<Vec<_>>().as_slice()].concat()
    );
    // What scripts rely on: a number keeps its meaning.
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 130]);

    let source = read("src/cli/help.rs");
    let help = source.split_once("Exit codes:\n").unwrap().1.split_once("\";").unwrap().0;
    let help: Vec<(u8, String)> = help
        .lines()
        .map(|line| line.trim().split_once(' ').unwrap())
        .map(|(code, meaning)| (code.parse().unwrap(), meaning.trim().to_owned()))
        .collect();
    assert_eq!(table, help);
}

#[test]
fn the_tests_that_hold_the_promises_exist() {
    let security = fs::read_to_string(root().join(".github/SECURITY.md")).unwrap();
    let named: Vec<(&str, &str)> = security
        .split('`')
        .filter_map(|text| text.rsplit_once("::"))
        .filter(|(module, _)| *module != "module")
        .collect();
    assert!(named.len() > 20, "{named:?}");
    for (module, test) in named {
        let file = match module {
            "fuzz" => "tests/fuzz/main.rs".to_owned(),
            _ => format!("tests/blackbox/{}.rs", module.replace("::", "/")),
        };
        let text = fs::read_to_string(root().join(&file)).unwrap();
        assert!(text.contains(&format!("#[test]\nfn {test}() {{")), "no {test} in {file}");
    }
}

#[test]
fn nothing_is_left_to_do_and_no_other_machine_is_named() {
    // Spelled so that this file does not contain them.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["/wo", "rk/"],
        ["crates", ".io"],
        ["py", "pi.org"],
        ["deb.deb", "ian.org"],
    ];
    for file in files_below(&[
        "src",
        "tests",
        "examples",
        ".ci",
        ".github",
        "README.md",
        "Cargo.toml",
        "version-manifest.example.yaml",
    ]) {
        // Cargo's own file, which the long fuzz run makes, names its registry.
        if file.ends_with("Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for word in words.map(|parts| parts.concat()) {
            assert!(!text.contains(&word), "{word} in {}", file.display());
        }
    }
}

#[test]
fn the_top_level_holds_what_the_house_lists() {
    let listed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "tests",
        "examples",
        "version-manifest.example.yaml",
        "README.md",
        "LICENSE",
        "target",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || listed.contains(&name.as_str()),
            "{name} does not belong on the top level"
        );
    }
}

/// Every breach of a wall in one source file, as `file: path: rule`.
fn breaches_of(walls: &[Wall], name: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let paths = paths_in(&code);
    let lies_in = |places: &[&str]| {
        places.iter().any(|place| name == *place || place.ends_with('/') && name.starts_with(place))
    };
    let mut breaches = Vec::new();
    for wall in walls {
        if lies_in(wall.except)
            || !(wall.around.is_empty() || wall.around.iter().any(|modules| lies_in(modules)))
        {
            continue;
        }
        let methods = wall.forbidden.iter().filter(|name| name.starts_with('.'));
        for method in methods.filter(|name| code.contains(**name)) {
            breaches.push(format!("src/{name}: {method}: {}", wall.rule));
        }
        for path in &paths {
            if wall
                .forbidden
                .iter()
                .any(|forbidden| format!("::{path}::").contains(&format!("::{forbidden}::")))
            {
                breaches.push(format!("src/{name}: {path}: {}", wall.rule));
            }
        }
    }
    breaches
}

/// The text without comments and without the unit tests at its end.
fn code_of(text: &str) -> String {
    let end = test_modules(text)
        .find(|(_, header)| header.ends_with('{'))
        .map_or(text.len(), |(at, _)| at);
    text[..end]
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Where a module of unit tests begins, and the line that names it: `mod tests;` or `mod tests {`.
fn test_modules(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices("#[cfg(test)]").filter_map(|(at, _)| {
        let header =
            text[at..].lines().skip(1).map(str::trim).find(|line| !line.starts_with("#["))?;
        header.strip_prefix("pub ").unwrap_or(header).starts_with("mod ").then_some((at, header))
    })
}

/// Every path that the code names; the trees of `use` spelled out.
fn paths_in(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for statement in code.split(';') {
        let start = statement.rfind("use ").filter(|start| {
            statement[..*start].trim_end().is_empty() || statement[..*start].ends_with(['\n', ' '])
        });
        if let Some(start) = start {
            let tree: String =
                statement[start + 4..].split_whitespace().collect::<Vec<_>>().join(" ");
            spell_out("", &tree, &mut paths);
        }
    }
    let is_part =
        |character: char| character.is_alphanumeric() || character == '_' || character == ':';
    paths.extend(
        code.split(|character| !is_part(character))
            .map(|path| path.trim_matches(':').to_owned())
            .filter(|path| !path.is_empty()),
    );
    paths
}

/// Adds the paths of one `use` tree: `std::{fs, io::{self, Read}}` is `std::fs`, `std::io` and
/// `std::io::Read`.
fn spell_out(before: &str, tree: &str, paths: &mut BTreeSet<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        let path = format!("{before}{name}");
        paths.insert(path.strip_suffix("::self").unwrap_or(&path).to_owned());
        return;
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let before = format!("{before}{}", head.trim());
    let (mut depth, mut start) = (0, 0);
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    spell_out(&before, inner[start..at].trim(), paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Name below `src/` and text of every source file but those of unit tests.
fn sources() -> Vec<(String, String)> {
    let source = root().join("src");
    let files: Vec<(PathBuf, String)> = files_below(&["src"])
        .into_iter()
        .map(|file| (file.clone(), fs::read_to_string(&file).unwrap()))
        .collect();
    let tests: BTreeSet<PathBuf> =
        files.iter().flat_map(|(file, text)| test_files(file, text)).collect();
    files
        .into_iter()
        .filter(|(file, _)| !tests.contains(file))
        .map(|(file, text)| (file.strip_prefix(&source).unwrap().display().to_string(), text))
        .collect()
}

/// The files of the modules that a file declares for unit tests only.
fn test_files(file: &Path, text: &str) -> Vec<PathBuf> {
    let directory = match file.file_name().and_then(|name| name.to_str()) {
        Some("mod.rs" | "lib.rs" | "main.rs") => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    let names =
        test_modules(text).filter_map(|(_, header)| header.strip_suffix(';')?.rsplit(' ').next());
    names.map(|name| directory.join(name).with_extension("rs")).collect()
}

fn files_below(places: &[&str]) -> Vec<PathBuf> {
    let mut left: Vec<PathBuf> = places.iter().map(|place| root().join(place)).collect();
    let mut files = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
