//! Commands for several objects: each object has a request of its own.

use std::fmt::Display;

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;

/// Applies an action to each object, with the request id for it, and returns the results and the exit code: that of the first failure.
///
/// - A failure does not stop the others: in an incident, an object that is gone already must not delay the rest. It is printed at once,
///   below the line of `failed`. Of a single object, the failure is the error of the command.
/// - A request id belongs to one request: with several objects, the name of each is appended to the given id.
pub async fn each<T: Display, R, W: Future<Output = Result<R, CliError>>>(
    run: &CommandContext,
    request_id: &Option<String>,
    objects: Vec<T>,
    failed: impl Fn(&str) -> String,
    mut one: impl FnMut(T, String) -> W,
) -> Result<(Vec<R>, Exit), CliError> {
    let several = objects.len() > 1;
    let (mut all, mut exit) = (Vec::with_capacity(objects.len()), Exit::Ok);
    for object in objects {
        let name = object.to_string();
        let own = request_id.as_ref().map(|id| if several { format!("{id}-{name}") } else { id.clone() });
        match one(object, run.request_id(&own)).await {
            Ok(done) => all.push(done),
            Err(error) if !several => return Err(error),
            // The action succeeded, and nobody reads stdout any more.
            Err(CliError::PipeClosed) => {}
            Err(error) => {
                run.out.say(failed(&name));
                run.out.fail(&error);
                exit = if exit == Exit::Ok { error.exit() } else { exit };
            }
        }
    }
    Ok((all, exit))
}
