//! Completions in a real bash, and manual pages as groff renders them.

use super::{said, said_of};
use crate::support::World;

#[test]
fn a_shell_completes_commands_and_options() {
    let world = World::new();
    let script = said_of(&world, &["completions", "bash"]);
    let complete = |words: &str, current: usize| {
        let ask = format!(
            "source ./mas.bash; complete -p mas >&2; COMP_WORDS=({words}); COMP_CWORD={current}; \
             COMP_LINE='{words}'; COMP_POINT=${{#COMP_LINE}}; _mas mas \"${{COMP_WORDS[{current}]}}\" \"${{COMP_WORDS[{current}-1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = std::process::Command::new("bash")
            .args(["--norc", "-c", &ask])
            .current_dir(world.path())
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("-F _mas mas"), "{output:?}");
        said(&output).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    std::fs::write(world.path().join("mas.bash"), script).unwrap();
    assert_eq!(complete("mas doc", 1), ["doctor"]);
    let mut found = complete("mas check a", 2);
    found.sort();
    assert_eq!(found, ["anchor", "audit"]);
    assert_eq!(complete("mas check audit --verif", 3), ["--verify"]);
    let mut found = complete("mas check dlq --format ''", 4);
    found.sort();
    assert_eq!(found, ["json", "nagios", "prometheus", "text"]);
    for shell in ["zsh", "fish"] {
        assert!(said_of(&world, &["completions", shell]).contains("doctor"), "{shell}");
    }
}

#[test]
fn the_manual_renders_without_a_warning() {
    let world = World::new();
    let output = world.mas(&["man", "--dir", "man/man1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let pages: Vec<_> =
        std::fs::read_dir(world.path().join("man/man1")).unwrap().map(|e| e.unwrap().path()).collect();
    let named = |name: &str| pages.iter().any(|page| page.file_name().unwrap() == name);
    assert!(named("mas.1") && named("mas-check-inbox.1") && named("mas-audit-verify.1"), "{pages:?}");
    assert!(!pages.iter().any(|page| page.to_string_lossy().contains("demo")), "{pages:?}");
    let mut command = std::process::Command::new("groff");
    let output = command.args(["-K", "utf8", "-man", "-Tutf8", "-ww", "-z"]).args(&pages).output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut command = std::process::Command::new("groff");
    let page = world.path().join("man/man1/mas-check-dlq.1");
    let output = command.args(["-K", "utf8", "-man", "-Tascii", "-P-cbou"]).arg(page).output().unwrap();
    // Lines are broken anywhere.
    let text = said(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["mas-check-dlq", "--warn", "0 ok, 1 warning, 2 critical, 3 unknown", "mas check server"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
