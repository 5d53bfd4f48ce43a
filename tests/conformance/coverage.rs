//! The suite against the document: each section with rules is named by a script, or is excused with a reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::runner::script::{Suite, folder, read};

/// The numbers of the document's headings.
fn sections() -> BTreeSet<String> {
    let document = include_str!("../../docs/PROTOCOL.md");
    let headings = document.lines().filter_map(|line| line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")));
    let numbers = headings.filter_map(|heading| heading.split(' ').next());
    numbers.filter(|number| number.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned).collect()
}

/// The sections that scripts name.
fn named() -> BTreeSet<String> {
    Suite::load().scripts.into_iter().flat_map(|(_, script)| script.sections).collect()
}

#[test]
fn each_section_is_named_by_a_script_or_excused() {
    let excused: BTreeMap<String, String> = read(&folder().join("excused.json"));
    let (sections, named) = (sections(), named());
    assert!(sections.len() > 40, "the headings were found: {sections:?}");
    let missing: Vec<&String> = sections.iter().filter(|it| !named.contains(*it) && !excused.contains_key(*it)).collect();
    assert!(missing.is_empty(), "no script names, and excused.json does not excuse: {missing:?}");
    for (section, reason) in &excused {
        assert!(sections.contains(section), "excused.json excuses §{section}, which is not there");
        assert!(!named.contains(section), "excused.json excuses §{section}, which a script names");
        assert!(reason.len() > 20, "excused.json gives a reason for §{section}");
    }
}

#[test]
fn each_script_names_sections_that_there_are() {
    let sections = sections();
    for (file, script) in Suite::load().scripts {
        assert!(!script.sections.is_empty(), "{file}: {} names no section", script.name);
        for section in &script.sections {
            assert!(sections.contains(section), "{file}: {} names §{section}, which is not there", script.name);
        }
    }
}

#[test]
fn each_script_has_a_name_of_its_own_and_says_what_it_checks() {
    let mut names = BTreeSet::new();
    for (file, script) in Suite::load().scripts {
        assert!(script.checks.ends_with('.'), "{file}: {} says in a sentence what it checks", script.name);
        assert!(names.insert(script.name.clone()), "{file}: `{}` stands twice", script.name);
    }
}
