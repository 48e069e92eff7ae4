//! `token`: who may use a node's API from elsewhere.

use bacnode_node::tokens::{SCOPES, Token, TokenError, Tokens};

use crate::args::{Format, TokenCommand};
use crate::error::{Exit, Failure, Result};
use crate::output;
use crate::settings::data_dir;

pub(super) fn run(format: Format, command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Create { data_dir: dir, name, scope } => {
            if let Some(unknown) = scope.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
                let message = format!("--scope {unknown}: there is nothing of that name that a token may do");
                return Err(Failure::usage(message).hint(SCOPES.join(", ")));
            }
            let made = Tokens::of(&data_dir(dir.as_ref())?).create(&name, scope).map_err(explain)?;
            output::line(&made);
            output::note("it is shown this once; BACNODE_TOKEN bears it");
            Ok(())
        }
        TokenCommand::List { data_dir: dir } => {
            let tokens = Tokens::of(&data_dir(dir.as_ref())?).all().map_err(explain)?;
            let row = |token: &Token| {
                vec![token.name.clone(), token.scopes.join(", "), output::ago(token.created.saturating_mul(1_000_000))]
            };
            let shown: Vec<_> = tokens
                .iter()
                .map(
                    |token| serde_json::json!({ "Name": token.name, "Scopes": token.scopes, "Created": token.created }),
                )
                .collect();
            output::rows(format, &shown, &["name", "may", "made"], &tokens.iter().map(row).collect::<Vec<_>>())
        }
        TokenCommand::Revoke { data_dir: dir, name } => {
            Tokens::of(&data_dir(dir.as_ref())?).revoke(&name).map_err(explain)?;
            output::note(&format!("{} {}", output::green("taken back"), output::plain(&name)));
            Ok(())
        }
    }
}

fn explain(error: TokenError) -> Failure {
    let exit = match error {
        TokenError::Unknown(_) => Exit::NotFound,
        TokenError::Known(_) | TokenError::Full => Exit::Usage,
        TokenError::File { .. } => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}
