//! In which form records are printed: the same choice wherever they are.

use clap::Args;

/// The choice.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct FormatArgs {
    /// One line for people for each record.
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    text: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Comma-separated values with a header.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
    Csv,
}

impl FormatArgs {
    /// What was chosen, else `default`.
    pub(super) fn or(self, default: Format) -> Format {
        match (self.text, self.json, self.csv) {
            (true, _, _) => Format::Text,
            (_, true, _) => Format::Json,
            (_, _, true) => Format::Csv,
            _ => default,
        }
    }
}
