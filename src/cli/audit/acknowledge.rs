//! `mas audit acknowledge`: puts on record that an operator knows of damage. A backup that was restored on purpose, or a loss that
//! cannot be undone, is then no damage any more to `mas audit verify`, which says what was acknowledged and by whom.

use std::io::Write;

use clap::Args;

use super::verify::{TrustArgs, verify_named, write_report};
use super::{SourceArgs, Trouble};
use crate::audit::verify::Damage;
use crate::cli::exit::Exit;
use crate::cli::operator::{Source, Why};
use crate::operation::{Command, command};

/// Arguments of `acknowledge`.
#[derive(Debug, Args)]
pub struct AcknowledgeArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    why: Why,
    /// Everything that is damaged now.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Ids of damages, as `mas audit verify --json` names them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

pub(super) fn run(args: &AcknowledgeArgs) -> Result<Exit, Trouble> {
    if !args.source.export.is_empty() {
        return Err(Trouble::Usage(
            "what is acknowledged goes on record in Redis: not with --export".to_owned(),
        ));
    }
    let (report, ()) = verify_named(&args.source, &args.trust, &|| (), &mut |(), _| {})?;
    let mut out = std::io::stdout().lock();
    let wanted: Vec<&Damage> =
        report.damages.iter().filter(|damage| args.all || args.ids.contains(&damage.id())).collect();
    if let Some(unknown) = args.ids.iter().find(|id| !wanted.iter().any(|damage| damage.id() == **id)) {
        return Err(Trouble::Usage(format!("{unknown}: there is no such damage now")));
    }
    if wanted.is_empty() {
        write_report(&mut out, &report).map_err(Trouble::output)?;
        if report.is_intact() {
            return Ok(Exit::Done);
        }
        for damage in &report.damages {
            writeln!(out, "{}  {damage}", damage.id()).map_err(Trouble::output)?;
        }
        return Err(Trouble::Usage("say which damage is acknowledged: ID…, or --all".to_owned()));
    }
    let damages = wanted.iter().map(|damage| command::Damage { id: damage.id(), text: damage.to_string() });
    let command = Command::Acknowledge { damages: damages.collect() };
    let _ = Source::of(args.source.config.clone()).carry_out(&args.why, &command, |_| Ok(()))?;
    for damage in &wanted {
        writeln!(out, "acknowledged {}  {damage}", damage.id()).map_err(Trouble::output)?;
    }
    if report.further_damages > 0 {
        writeln!(out, "{} further places are damaged: verify and acknowledge again", report.further_damages)
            .map_err(Trouble::output)?;
    }
    Ok(Exit::Done)
}
