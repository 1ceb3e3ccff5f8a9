//! What the install script may not do: whatever it takes over instead of making it is another's, who may
//! have prepared it (PostgreSQL's manual, "Security Considerations for Extension Scripts").

use std::path::Path;

#[test]
fn the_install_script_makes_everything_and_takes_nothing_over() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql");
    let scripts = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let scripts: Vec<_> = scripts.filter(|path| path.extension().is_some_and(|ext| ext == "sql")).collect();
    assert!(scripts.iter().any(|path| path.ends_with("pg_klaxon--0.1.0.sql")), "{scripts:?}");
    for script in scripts {
        let text = std::fs::read_to_string(&script).unwrap();
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
        for taking in
            ["CREATE OR REPLACE", "TABLE IF NOT EXISTS", "INDEX IF NOT EXISTS", "SCHEMA IF NOT EXISTS"]
        {
            assert!(!words.contains(taking), "{taking} in {}", script.display());
        }
    }
}
