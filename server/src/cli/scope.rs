//! `thalweg scope`.

use super::{Server, name, out};
use anyhow::bail;
use clap::{Args, Subcommand};
use thalweg_client::controller::Controller;
use thalweg_wire::controller::{DeleteScopeStatus, Request, Response};

/// What to do with scopes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a scope.
    Create(One),
    /// List all scopes.
    List(Server),
    /// Delete a scope that is empty.
    Delete {
        #[command(flatten)]
        one: One,
        /// Delete everything that is in it, too.
        #[arg(long)]
        recursive: bool,
    },
}

/// A scope of a server.
#[derive(Args, Debug)]
pub(crate) struct One {
    /// The scope's name.
    #[arg(value_parser = name::scope)]
    scope: String,
    #[command(flatten)]
    server: Server,
}

/// Does it.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(One { scope, server }) => {
            let made = server.client()?.create_scope(&scope).await?;
            out::line(format!("scope {scope} {}", created(made)))
        }
        Command::List(server) => list(server.client()?.controller()).await,
        Command::Delete { one: One { scope, server }, recursive } => {
            delete(server.client()?.controller(), scope, recursive).await
        }
    }
}

/// What a creation did.
pub(crate) fn created(made: bool) -> &'static str {
    if made { "created" } else { "was there already" }
}

async fn list(controller: &Controller) -> anyhow::Result<()> {
    let mut token = String::new();
    loop {
        match controller.call(Request::ListScopes { token }).await? {
            Response::ListScopes { scopes, .. } if scopes.is_empty() => return Ok(()),
            Response::ListScopes { scopes, token: next } => {
                scopes.into_iter().try_for_each(out::line)?;
                token = next;
            }
            other => bail!("the controller answered {other:?}"),
        }
    }
}

async fn delete(controller: &Controller, scope: String, recursive: bool) -> anyhow::Result<()> {
    let name = scope.clone();
    let request = if recursive {
        Request::DeleteScopeRecursive { scope }
    } else {
        Request::DeleteScope { scope }
    };
    match controller.call(request).await? {
        Response::DeleteScope(DeleteScopeStatus::Success) => {
            out::line(format!("scope {name} deleted"))
        }
        Response::DeleteScope(DeleteScopeStatus::ScopeNotFound) => {
            bail!("there is no scope {name}")
        }
        Response::DeleteScope(DeleteScopeStatus::ScopeNotEmpty) => {
            bail!("scope {name} is not empty: delete what is in it first, or use --recursive")
        }
        other => bail!("scope {name} was not deleted: the controller answered {other:?}"),
    }
}
