//! `mas completions` and `mas man`: what shells and manuals need to know of the commands.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::exit::Exit;

/// The program's name.
const NAME: &str = "mas";

const COMPLETIONS: &str = "\
Examples:
  mas completions bash > /etc/bash_completion.d/mas
  mas completions zsh > /usr/local/share/zsh/site-functions/_mas
  mas completions fish > ~/.config/fish/completions/mas.fish
  source <(mas completions bash)                            # for this shell alone";

const MAN: &str = "\
Writes mas.1 and a page for each command (mas-audit-verify.1).

Examples:
  mas man --dir /usr/local/share/man/man1 && man mas-check
  mas man --dir . && man -l ./mas-doctor.1";

/// Arguments of `mas completions`.
#[derive(Debug, Args)]
#[command(after_long_help = COMPLETIONS)]
pub struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `mas man`.
#[derive(Debug, Args)]
#[command(after_long_help = MAN)]
pub struct ManArgs {
    /// Where the pages go; the folder is made. What is there under the same names is replaced.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// `mas completions`: `command` is the whole program.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Exit {
    // In one piece: who reads it may have gone.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, NAME, &mut script);
    match std::io::stdout().lock().write_all(&script) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            eprintln!("mas completions: {error}");
            Exit::Failed
        }
    }
}

/// `mas man`: `command` is the whole program.
pub fn man(args: &ManArgs, command: Command) -> Exit {
    let written =
        std::fs::create_dir_all(&args.dir).and_then(|()| clap_mangen::generate_to(command, &args.dir));
    match written {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("mas man: {}: {error}", args.dir.display());
            Exit::Failed
        }
    }
}
