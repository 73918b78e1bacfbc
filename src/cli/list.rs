//! Lists: fetched page by page up to a limit, polled, or followed as a stream.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::args;
use super::error::{CliError, ServerError};
use super::exit::Exit;
use super::out::{Out, Printable, Row};
use super::show::{Shown, shown};

/// Rows per page. A page of the largest rows stays far below the message limit of 4 MiB.
const PAGE: usize = 500;

/// The options of a list.
#[derive(Args, Clone)]
pub struct ListArgs {
    /// Maximum number of rows
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = args::limit)]
    pub limit: usize,
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// The options of polling a list.
#[derive(Args, Clone)]
pub struct WatchArgs {
    /// Keep polling, and print a JSON line for every row that is new, changed or gone
    #[arg(long)]
    pub watch: bool,
    /// Polling interval
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = args::duration, requires = "watch")]
    pub every: Duration,
}

/// The row that is printed for an id that is no longer listed.
#[derive(Serialize)]
struct Gone<'a> {
    gone: &'a str,
}

/// Prints a list. `page` fetches one page, given a page size and the token of the previous page.
pub async fn show<M, F, W>(out: &Out, list: &ListArgs, page: F) -> Result<Exit, CliError>
where
    Shown<M>: Row,
    F: Fn(i32, String) -> W,
    W: Future<Output = Result<(Vec<M>, String), CliError>>,
{
    if list.watch.watch {
        return watch(out, list.watch.every, || async { Ok(shown(all(list.limit, &page).await?.0)) }).await;
    }
    let (rows, more) = all(list.limit, &page).await?;
    let rows = shown(rows);
    out.list(&rows)?;
    if more {
        out.say(format_args!("there are more than these {}: raise --limit", rows.len()));
    }
    Ok(Exit::Ok)
}

/// Fetches up to `limit` rows, and tells whether there are more.
pub async fn all<R, F, W>(limit: usize, page: &F) -> Result<(Vec<R>, bool), CliError>
where
    F: Fn(i32, String) -> W,
    W: Future<Output = Result<(Vec<R>, String), CliError>>,
{
    let (mut rows, mut token) = (Vec::new(), String::new());
    loop {
        let size = PAGE.min(limit.saturating_sub(rows.len()).max(1));
        let (mut found, next) = page(i32::try_from(size).unwrap_or(i32::MAX), token).await?;
        rows.append(&mut found);
        let full = rows.len() >= limit;
        if next.is_empty() || full {
            let more = !next.is_empty() || rows.len() > limit;
            rows.truncate(limit);
            return Ok((rows, more));
        }
        token = next;
    }
}

/// Prints a line for every row that is new, changed or gone since the previous poll. Ends only by an error or with the process.
pub async fn watch<N, F, W>(out: &Out, every: Duration, look: F) -> Result<Exit, CliError>
where
    N: Printable,
    F: Fn() -> W,
    W: Future<Output = Result<Vec<N>, CliError>>,
{
    let mut before: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let mut now = BTreeMap::new();
        for row in look().await? {
            let text = serde_json::to_string(&row).map_err(CliError::ours)?;
            if before.get(&row.name()) != Some(&text) {
                out.line(&row)?;
            }
            now.insert(row.name(), text);
        }
        for gone in before.keys().filter(|name| !now.contains_key(*name)) {
            out.line(&Gone { gone })?;
        }
        before = now;
        tokio::time::sleep(every).await;
    }
}

/// Prints a line for each message of a stream until the server ends it, and then the sequence number to resume after.
pub async fn follow<T>(
    out: &Out,
    mut stream: tonic::Streaming<T>,
    mut last: Option<u64>,
    seq: impl Fn(&T) -> u64,
    show: impl Fn(T) -> Result<(), CliError>,
) -> Result<Exit, CliError> {
    loop {
        match stream.message().await {
            Ok(Some(told)) => {
                last = Some(seq(&told));
                show(told)?;
            }
            ended => {
                if let Some(seq) = last {
                    out.say(format_args!("to go on where this ended: --resume-after {seq}"));
                }
                return match ended {
                    Err(status) => Err(CliError::Server(Box::new(ServerError::from_status(&status)))),
                    Ok(_) => Err(CliError::Ended),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_ends_a_list_and_says_so() {
        let page = |size: i32, token: String| async move {
            let at: usize = token.parse().unwrap_or(0);
            let end = (at + usize::try_from(size).unwrap()).min(1200);
            Ok(((at..end).collect::<Vec<_>>(), if end < 1200 { end.to_string() } else { String::new() }))
        };
        for (limit, rows, more) in [(1, 1, true), (500, 500, true), (501, 501, true), (1200, 1200, false), (5000, 1200, false)] {
            let (found, is_more) = all(limit, &page).await.unwrap();
            assert_eq!((found.len(), is_more), (rows, more), "limit {limit}");
        }
    }
}
