//! How our binaries read their flags.

use clap::Parser;
use clap::error::ErrorKind;

/// Reads the process's arguments. Help and version are printed, and end the process.
///
/// # Errors
/// What is wrong with the arguments, in one line like every other error of ours.
pub fn parse<C: Parser>() -> Result<C, String> {
    C::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => one_line(&error.to_string()),
    })
}

/// What clap says before it comes to the usage.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let said =
        lines.take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more information"));
    let said: Vec<&str> = said.filter(|l| !l.is_empty()).collect();
    let said = said.join("; ");
    format!("{} (--help tells more)", said.strip_prefix("error: ").unwrap_or(&said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Flags {
        #[arg(long)]
        seeds: Option<u32>,
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (args, words) in [
            (["x", "--seed=1"], ["unexpected argument '--seed'", "'--seeds'"]),
            (["x", "--seeds=a"], ["invalid value 'a'", "invalid digit"]),
        ] {
            let line = one_line(&Flags::try_parse_from(args).unwrap_err().to_string());
            assert!(!line.contains('\n') && !line.contains("Usage"), "{line}");
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
    }
}
