//! Requests about scopes, and lists.

use super::{invalid, scope_name, unexpected};
use crate::controller::Controller;
use crate::limits::PAGE_NAMES_MAX;
use crate::record::Command;
use crate::rpc::convert::stream_message;
use crate::state::{Outcome, Refusal, SYSTEM_SCOPE};
use thalweg_types::name::is_entity_name;
use thalweg_wire::controller::{
    Code, CreateScopeStatus, DeleteScopeStatus, ListStatus, Response, RpcError,
};

/// What a page token begins with; the last name of the page stands behind it.
const TOKEN_PREFIX: &str = "after:";

impl Controller {
    pub(super) async fn create_scope(&self, scope: String) -> Result<Response, RpcError> {
        scope_name(&scope)?;
        if !is_entity_name(&scope) {
            return Ok(Response::CreateScope(CreateScopeStatus::InvalidScopeName));
        }
        if self.read(|state| state.visible_scope(&scope).is_some()) {
            return Ok(Response::CreateScope(CreateScopeStatus::ScopeExists));
        }
        let status = match self.propose_when_idle(Command::CreateScope { scope }).await? {
            Ok(Outcome::Done) => CreateScopeStatus::Success,
            Err(Refusal::ScopeExists) => CreateScopeStatus::ScopeExists,
            other => return Err(unexpected(&other)),
        };
        Ok(Response::CreateScope(status))
    }

    pub(super) async fn delete_scope(&self, scope: String) -> Result<Response, RpcError> {
        scope_name(&scope)?;
        keep_system(&scope)?;
        let status = match self.inner.propose(Command::DeleteScope { scope }).await? {
            Ok(Outcome::Done) => DeleteScopeStatus::Success,
            Err(Refusal::ScopeNotFound) => DeleteScopeStatus::ScopeNotFound,
            Err(Refusal::ScopeNotEmpty) => DeleteScopeStatus::ScopeNotEmpty,
            other => return Err(unexpected(&other)),
        };
        Ok(Response::DeleteScope(status))
    }

    /// Answers when everything is gone. A scope that does not exist is success.
    pub(super) async fn delete_scope_recursive(&self, scope: String) -> Result<Response, RpcError> {
        scope_name(&scope)?;
        keep_system(&scope)?;
        let id = self.read(|state| state.record().scopes.get(&scope).map(|scope| scope.id));
        let outcome =
            self.inner.propose(Command::BeginDeleteScope { scope: scope.clone() }).await?;
        match outcome {
            Ok(Outcome::Done) => {}
            Err(Refusal::ScopeNotFound) => {
                return Ok(Response::DeleteScope(DeleteScopeStatus::Success));
            }
            other => return Err(unexpected(&other)),
        }
        let gone = |state: &crate::state::State| {
            let found = state.record().scopes.get(&scope);
            found.is_none_or(|found| Some(found.id) != id && !found.deleting).then_some(())
        };
        self.inner.wait_for(gone).await?;
        Ok(Response::DeleteScope(DeleteScopeStatus::Success))
    }

    pub(super) fn check_scope_exists(&self, scope: &str) -> Result<Response, RpcError> {
        scope_name(scope)?;
        Ok(Response::Exists(self.read(|state| state.visible_scope(scope).is_some())))
    }

    pub(super) fn list_scopes(&self, token: &str) -> Result<Response, RpcError> {
        let after = page_start(token)?;
        let scopes = self.read(|state| state.list_scopes(after, PAGE_NAMES_MAX));
        let token = page_end(token, scopes.last().map(String::as_str));
        Ok(Response::ListScopes { scopes, token })
    }

    /// With `tag`, an invented token is the start; a tag of no characters is refused.
    pub(super) fn list_streams(
        &self,
        scope: &str,
        tag: Option<&str>,
        token: &str,
    ) -> Result<Response, RpcError> {
        scope_name(scope)?;
        if tag.is_some_and(str::is_empty) {
            return Err(invalid("the tag is empty"));
        }
        let after = match page_start(token) {
            Err(_) if tag.is_some() => None,
            start => start?,
        };
        let found = self.read(|state| {
            state.visible_scope(scope)?;
            Some(state.list_streams(scope, tag, after, PAGE_NAMES_MAX))
        });
        let Some(names) = found else {
            let status = ListStatus::ScopeNotFound;
            return Ok(Response::ListStreams { status, streams: Vec::new(), token: String::new() });
        };
        let token = page_end(token, names.last().map(|name| name.stream.as_str()));
        let streams = names.iter().map(stream_message).collect();
        Ok(Response::ListStreams { status: ListStatus::Success, streams, token })
    }
}

fn keep_system(scope: &str) -> Result<(), RpcError> {
    if scope == SYSTEM_SCOPE {
        let message = format!("scope {SYSTEM_SCOPE} cannot be deleted");
        return Err(RpcError::new(Code::PermissionDenied, message));
    }
    Ok(())
}

/// The name behind which the page begins.
pub(super) fn page_start(token: &str) -> Result<Option<&str>, RpcError> {
    match token.strip_prefix(TOKEN_PREFIX) {
        Some(name) => Ok(Some(name)),
        None if token.is_empty() => Ok(None),
        None => Err(invalid("the continuation token was not given by this controller")),
    }
}

/// The token behind a page that ends with `last`.
pub(super) fn page_end(token: &str, last: Option<&str>) -> String {
    last.map_or_else(|| token.to_owned(), |last| format!("{TOKEN_PREFIX}{last}"))
}
