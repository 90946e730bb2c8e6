//! Names of scopes and streams on the command line.

use thalweg_types::name::{ScopedStream, is_entity_name};
use thalweg_wire::controller::StreamName;

/// `scope/stream`, for clap.
pub(crate) fn stream(text: &str) -> Result<ScopedStream, String> {
    let Some((scope, stream)) = text.split_once('/') else {
        return Err("a stream is named SCOPE/STREAM".to_owned());
    };
    check(scope)?;
    check(stream)?;
    Ok(ScopedStream::new(scope, stream))
}

/// A scope's name, for clap.
pub(crate) fn scope(text: &str) -> Result<String, String> {
    check(text)?;
    Ok(text.to_owned())
}

fn check(name: &str) -> Result<(), String> {
    if is_entity_name(name) {
        return Ok(());
    }
    Err(format!("'{name}' cannot be a name: letters, digits, '.' and '-', at most 255 characters"))
}

/// The name as the controller's protocol has it.
pub(crate) fn on_wire(stream: &ScopedStream) -> StreamName {
    StreamName { scope: stream.scope.to_string(), stream: stream.stream.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_two_legal_names() {
        assert_eq!(stream("a/b-1"), Ok(ScopedStream::new("a", "b-1")));
        for bad in ["a", "a/", "/b", "a/b/c", "a/b_c", ""] {
            assert!(stream(bad).is_err(), "{bad}");
        }
    }
}
