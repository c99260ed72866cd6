//! `versions.env`: the manifest's versions as assignments that shells source and Compose reads.
//!
//! Values are made of parsed names, tags and digests only, so no character in them means anything
//! to a shell or to Compose's reader, and nothing is ever quoted.

use super::reference::{Digest, Repository, ServiceName};

/// Whether Compose gets `tag@digest` or only the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pin {
    /// `1.64@sha256:…`: exactly the recorded bytes.
    #[default]
    Digest,
    /// `1.64`: whatever the daemon or the registry calls that today.
    Tag,
}

/// Assignments in the order of the file.
pub type Assignments = Vec<(String, String)>;

/// What one service contributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The service, which names the variables.
    pub service: ServiceName,
    /// The value of its `…_IMAGE` variable.
    pub image: Repository,
    /// The value of its `…_TAG` variable.
    pub tag: String,
    /// Further variables that get the image, as existing Compose files call them.
    pub also_image: Option<String>,
    /// Further variables that get the tag.
    pub also_tag: Option<String>,
}

/// Why the assignments of two services cannot stand in one file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Collision {
    /// Two services want one variable.
    #[error(
        "services `{first}` and `{second}` both set the variable {variable}, to different values"
    )]
    Shared {
        /// The variable.
        variable: String,
        /// The service that comes first.
        first: ServiceName,
        /// The service that wants another value.
        second: ServiceName,
    },
    /// A name that no shell would take for a variable, or that a program would act upon.
    #[error("service `{service}` would set `{variable}`, which is no variable for it to set")]
    Unusable {
        /// The name.
        variable: String,
        /// The service.
        service: ServiceName,
    },
}

/// The variable name of `service` with `prefix` and `suffix`: upper case, `_` for what a variable
/// name cannot hold.
#[must_use]
pub fn variable(prefix: &str, service: &ServiceName, suffix: &str) -> String {
    let middle: String = service
        .as_str()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect();
    format!("{prefix}{middle}_{suffix}")
}

/// Whether `name` can be a variable in a shell and in a Compose file.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether shells, the loader, Docker or Compose act upon the variable `name`, so that a version in
/// it would break whoever sources the file.
#[must_use]
pub fn is_taken(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "BASH_ENV",
        "CDPATH",
        "ENV",
        "HOME",
        "IFS",
        "LANG",
        "OPTIND",
        "PATH",
        "PROMPT_COMMAND",
        "PS1",
        "PS2",
        "PS4",
        "PWD",
        "SHELL",
    ];
    NAMES.contains(&name)
        || ["LD_", "LC_", "DOCKER_", "COMPOSE_"].iter().any(|prefix| name.starts_with(prefix))
}

/// The assignments of all `lines`, after the registry's own.
///
/// # Errors
///
/// Two services that set one variable to different values, or a name that cannot be a variable.
pub fn assignments(
    prefix: &str,
    registry: Option<&str>,
    lines: &[Line],
) -> Result<Assignments, Collision> {
    let mut all = Assignments::with_capacity(lines.len() * 2 + 1);
    let mut setters = std::collections::HashMap::new();
    if let Some(registry) = registry {
        all.push((format!("{prefix}ECR_REGISTRY"), registry.to_owned()));
    }
    for line in lines {
        let image = line.image.as_written();
        let own = [
            (variable(prefix, &line.service, "IMAGE"), image),
            (variable(prefix, &line.service, "TAG"), line.tag.as_str()),
        ];
        let also_image = line.also_image.iter().map(|name| (name.clone(), image));
        let also_tag = line.also_tag.iter().map(|name| (name.clone(), line.tag.as_str()));
        for (name, value) in own.into_iter().chain(also_image).chain(also_tag) {
            if !is_variable(&name) || is_taken(&name) {
                return Err(Collision::Unusable { variable: name, service: line.service.clone() });
            }
            match setters.insert(name.clone(), (&line.service, value)) {
                None => all.push((name, value.to_owned())),
                Some((_, before)) if before == value => {}
                Some((first, _)) => {
                    return Err(Collision::Shared {
                        variable: name,
                        first: first.clone(),
                        second: line.service.clone(),
                    });
                }
            }
        }
    }
    Ok(all)
}

const MANIFEST_LINE: &str = "# manifest-sha256: ";
const CONTENT_LINE: &str = "# content-sha256: ";

/// The text of the file: a header that names the manifest and its digest, with `notes` a line each,
/// then the assignments. The same manifest gives the same bytes.
#[must_use]
pub fn render(
    manifest_name: &str,
    manifest_digest: &Digest,
    notes: &[String],
    assignments: &Assignments,
) -> String {
    let content = assignment_lines(assignments);
    let notes: String = notes.iter().map(|note| format!("# {note}\n")).collect();
    format!(
        "# Written by dkv from {manifest_name}. Do not edit: the next dkv command that writes \
            replaces it.\n\
         {MANIFEST_LINE}{}\n{CONTENT_LINE}{}\n{notes}\n{content}",
        manifest_digest.hex(),
        Digest::of(content.as_bytes()).hex(),
    )
}

fn assignment_lines(assignments: &Assignments) -> String {
    let mut text = String::with_capacity(assignments.len() * 100);
    for (name, value) in assignments {
        text.push_str(name);
        text.push('=');
        text.push_str(value);
        text.push('\n');
    }
    text
}

/// How an existing file relates to what the manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The same bytes.
    Current,
    /// The same assignments below another header: the manifest changed in ways that no variable
    /// shows.
    OldHeader,
    /// dkv wrote it from an older manifest.
    Stale,
    /// Somebody or something else wrote it, or changed it since.
    Edited,
}

/// Compares the file `found` with the text `expected` from [`render`].
#[must_use]
pub fn compare(found: &str, expected: &str) -> State {
    if found == expected {
        return State::Current;
    }
    let untouched = found
        .lines()
        .find_map(|line| line.strip_prefix(CONTENT_LINE))
        .zip(found.split_once("\n\n"))
        .is_some_and(|(hash, (_, content))| Digest::of(content.as_bytes()).hex() == hash.trim());
    match (lines_that_count(found).eq(lines_that_count(expected)), untouched) {
        (true, _) => State::OldHeader,
        (false, true) => State::Stale,
        (false, false) => State::Edited,
    }
}

fn lines_that_count(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(service: &str, tag: &str) -> Line {
        Line {
            service: service.parse().unwrap(),
            image: format!("registry.example/{}", service.replace('-', "_")).parse().unwrap(),
            tag: tag.to_owned(),
            also_image: None,
            also_tag: None,
        }
    }

    #[test]
    fn variables_are_named_after_the_service() {
        let lines = [
            line("req_router", "1.64"),
            Line { also_tag: Some("VERSION".into()), ..line("conv-mgr", "2") },
        ];
        let all = assignments("DK_", Some("public.ecr.aws/x"), &lines).unwrap();
        assert_eq!(
            assignment_lines(&all),
            "DK_ECR_REGISTRY=public.ecr.aws/x\nDK_REQ_ROUTER_IMAGE=registry.example/req_router\nDK_REQ_ROUTER_TAG=1.64\n\
             DK_CONV_MGR_IMAGE=registry.example/conv_mgr\nDK_CONV_MGR_TAG=2\nVERSION=2\n"
        );
    }

    #[test]
    fn one_variable_cannot_have_two_values() {
        let collision =
            assignments("DK_", None, &[line("a-b", "1"), line("a_b", "2")]).unwrap_err();
        assert!(
            matches!(collision, Collision::Shared { variable, .. } if variable == "DK_A_B_TAG")
        );
        let shared =
            |name: &str, tag: &str| Line { also_tag: Some("VERSION".into()), ..line(name, tag) };
        assert!(assignments("DK_", None, &[shared("a", "1"), shared("b", "1")]).is_ok());
        assert!(assignments("DK_", None, &[shared("a", "1"), shared("b", "2")]).is_err());
    }

    #[test]
    fn names_that_are_no_variables_or_belong_to_programs_are_refused() {
        let line = |name: &str, also_tag: Option<&str>| Line {
            service: name.parse().unwrap(),
            image: "r.example/a".parse().unwrap(),
            tag: "1".to_owned(),
            also_image: None,
            also_tag: also_tag.map(str::to_owned),
        };
        for (prefix, line) in [
            ("", line("1a", None)),
            ("DK_", line("a", Some("PATH"))),
            ("COMPOSE_", line("a", None)),
        ] {
            let refused = assignments(prefix, None, std::slice::from_ref(&line));
            assert!(
                matches!(refused, Err(Collision::Unusable { .. })),
                "{prefix} {line:?}: {refused:?}"
            );
        }
        assert!(assignments("", None, &[line("a1", Some("VERSION"))]).is_ok());
    }

    #[test]
    fn an_existing_file_is_current_stale_or_edited() {
        let of = |manifest: &[u8], tag: &str| {
            render(
                "m.yaml",
                &Digest::of(manifest),
                &[],
                &assignments("DK_", None, &[line("a", tag)]).unwrap(),
            )
        };
        let now = of(b"new", "2");
        assert_eq!(compare(&now, &now), State::Current);
        assert_eq!(compare(&of(b"old", "2"), &now), State::OldHeader);
        assert_eq!(compare(&of(b"old", "1"), &now), State::Stale);
        assert_eq!(compare(&of(b"old", "1").replace("TAG=1", "TAG=9"), &now), State::Edited);
        assert_eq!(compare(&now.replace("TAG=2", "TAG=9"), &now), State::Edited);
        assert_eq!(compare("DK_A_TAG=latest\n", &now), State::Edited);
        assert_eq!(compare(&now.replace('\n', "\r\n"), &now), State::OldHeader);
    }
}
