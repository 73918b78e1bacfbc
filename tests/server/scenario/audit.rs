//! The audit of a task without access to a server: its records with their proofs, and the detection of each kind of forgery.

use std::path::Path;

use tempfile::TempDir;

use super::typed;

/// An auditor who fetched a checkpoint and the keys that sign it.
pub(super) struct Reader {
    config: String,
    folder: TempDir,
}

impl Reader {
    pub(super) fn new(context: &Path) -> Reader {
        let reader = Reader { config: context.to_str().unwrap().to_owned(), folder: tempfile::tempdir().unwrap() };
        let (checkpoint, keys) = (reader.at("checkpoint"), reader.at("keys"));
        assert_eq!(reader.asks(&["audit", "checkpoint", "--out", &checkpoint, "--keys-out", &keys]).0, 0);
        reader
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs a command against the server.
    fn asks(&self, args: &[&str]) -> (i32, String) {
        typed(&[&["--config", &self.config], args].concat())
    }

    /// Verifies an exported file offline, with the fetched keys.
    fn verifies(&self, name: &str) -> (i32, String) {
        typed(&["audit", "verify", &self.at(name), "--key", &self.at("keys")])
    }

    /// Exports and verifies the records of a task once, and asserts that they contain these events.
    pub(super) fn tells(&self, task: &str, told: &[&str]) -> String {
        let file = self.at(task);
        if !Path::new(&file).exists() {
            let (code, said) = self.asks(&["audit", "export", task, "--out", &file]);
            assert_eq!(code, 0, "{said}");
            let (code, said) = self.verifies(task);
            assert_eq!(code, 0, "{said}");
        }
        let story = std::fs::read_to_string(&file).unwrap();
        for event in told {
            assert!(story.contains(event), "the export does not tell: {event}\n{story}");
        }
        story
    }

    /// A flipped byte, a removed record and a swapped pair are each detected.
    pub(super) fn no_lie_about_it_passes(&self, task: &str) {
        let story = self.tells(task, &[]);
        let lines: Vec<&str> = story.split_inclusive('\n').collect();
        let records: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].contains("\"record\"")).collect();
        let all = || lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let mut flipped = all();
        let bytes = flipped[records[1]].find("\"bytes\":\"").unwrap() + 20;
        let other = if &flipped[records[1]][bytes..=bytes] == "A" { "B" } else { "A" };
        flipped[records[1]].replace_range(bytes..=bytes, other);
        let mut removed = all();
        removed.remove(records[1]);
        let mut swapped = all();
        swapped.swap(records[0], records[1]);
        for (name, lines) in [("flipped", flipped), ("removed", removed), ("swapped", swapped)] {
            assert_ne!(lines.concat(), story);
            std::fs::write(self.at(name), lines.concat()).unwrap();
            let (code, said) = self.verifies(name);
            assert_eq!(code, 10, "{name}: {said}");
        }
    }
}
