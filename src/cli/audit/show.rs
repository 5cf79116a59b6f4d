//! `gatepost audit show`: which identity did what, for which message, with which outcome.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::audit::entry::{Found, ReadError, entries};
use crate::audit::filter::Filter;
use crate::audit::follow::Follower;
use crate::audit::show::{self, Row, transactions};
use crate::audit::table::{Layout, Wanted};
use crate::cli::audit::Journal;
use crate::cli::audit::output::Output;
use crate::cli::audit::select::Selection;
use crate::cli::{Answer, Failure};

/// Rows by which the widths of the table's columns are decided: as many as fit in memory without a
/// thought, and more than anybody reads.
const SAMPLED: usize = 1_000;
/// Records from before that `--follow` begins with, as `journalctl -f` does.
const FOLLOW_FIRST: usize = 10;
/// How often `--follow` looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// List transactions: identity, correlation id, the database's transaction id, outcome.
///
/// A transaction is one row, whatever number of records it has; --records lists the records themselves,
/// of every event. Reads, and does not prove: "gatepost audit verify" does. Exits with 1 when nothing
/// matches.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gatepost audit show --config gatepost.yaml --correlation order-4711
  gatepost audit show --config gatepost.yaml --event 'session.*' --from 2h --follow
  gatepost audit show --directory audit --identity billing --from 2026-01-01 --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    journal: Journal,
    #[command(flatten)]
    selection: Selection,
    /// List records instead of transactions; --event and --follow do, too.
    #[arg(long)]
    records: bool,
    /// Go on with what is written from now on, until interrupted; begins with the last 10 records, or with
    /// what --from and --limit say.
    #[arg(long, short)]
    follow: bool,
    /// The last so many only.
    #[arg(long, short = 'n', value_name = "NUMBER")]
    limit: Option<usize>,
    /// `json` is one object a line: a transaction, or with --records the record's own line, byte for byte.
    #[arg(long, value_enum, default_value_t = Format::Table, conflicts_with = "json")]
    format: Format,
    /// The same as --format json.
    #[arg(long)]
    json: bool,
    /// Cut nothing, however long the lines of the table become.
    #[arg(long)]
    wide: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let Some(directory) = arguments.journal.directory() else {
        return Ok(Answer::No);
    };
    let filter = arguments.selection.filter();
    let lists_records = arguments.records || arguments.follow || !arguments.selection.event.is_empty();
    let wanted = Wanted {
        rigid: if lists_records {
            &show::RECORD_RIGID
        } else {
            &show::RIGID
        },
        least: if arguments.follow {
            &show::RECORD_LEAST
        } else {
            &[]
        },
        favoured: lists_records.then_some(show::RECORD_FAVOURED),
        wide: arguments.wide,
    };
    let heads: &[&str] = if lists_records {
        &show::RECORD_HEADS
    } else {
        &show::HEADS
    };
    let mut shown = Shown::new(arguments, heads, wanted);
    if arguments.follow {
        follow(&directory, &filter, &mut shown)?;
    } else if lists_records {
        for found in entries(&directory)? {
            let found = found?;
            if filter.admits(&found.entry) && !shown.record(&found)? {
                break;
            }
        }
    } else {
        let listed = transactions(&directory, &filter, &mut |row| match shown.transaction(&row) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stop::Gone),
            Err(failure) => Err(Stop::Failed(failure)),
        });
        match listed {
            Ok(()) | Err(Stop::Gone) => {}
            Err(Stop::Failed(failure)) => return Err(failure),
        }
    }
    shown.end()?;
    // Whoever follows asked for what comes, and nothing is an answer.
    Ok(if shown.count > 0 || arguments.follow {
        Answer::Good
    } else {
        Answer::No
    })
}

enum Stop {
    /// The reader of the output went away.
    Gone,
    Failed(Failure),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

/// Prints until interrupted.
fn follow(directory: &Path, filter: &Filter, shown: &mut Shown) -> Result<(), Failure> {
    if shown.limit.is_none() && filter.from.is_none() {
        shown.limit = Some(FOLLOW_FIRST);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut follower = Follower::new(directory, 0);
    let mut goes_on = true;
    runtime.block_on(async {
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        while goes_on {
            follower.look(&mut |found| {
                if goes_on && filter.admits(&found.entry) {
                    goes_on = shown.record(&found)?;
                }
                Ok::<_, Failure>(())
            })?;
            goes_on = goes_on && shown.end()?;
            shown.limit = None;
            tokio::select! {
                ended = &mut interrupted => return ended.map_err(Failure::from),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        Ok(())
    })
}

/// What is printed, and what waits for it.
struct Shown {
    output: Output,
    json: bool,
    heads: Vec<String>,
    wanted: Wanted,
    /// Only the last so many.
    limit: Option<usize>,
    waiting: VecDeque<Vec<u8>>,
    rows: VecDeque<Vec<String>>,
    layout: Option<Layout>,
    count: u64,
}

impl Shown {
    fn new(arguments: &Arguments, heads: &[&str], wanted: Wanted) -> Self {
        Self {
            output: Output::standard(),
            json: arguments.json || arguments.format == Format::Json,
            heads: heads.iter().map(|head| (*head).to_owned()).collect(),
            wanted,
            limit: arguments.limit,
            waiting: VecDeque::new(),
            rows: VecDeque::new(),
            layout: None,
            count: 0,
        }
    }

    /// `false`: nobody reads any more.
    fn record(&mut self, found: &Found) -> Result<bool, Failure> {
        if self.json {
            self.line(found.line.clone())
        } else {
            self.row(show::record_cells(&found.entry))
        }
    }

    fn transaction(&mut self, row: &Row) -> Result<bool, Failure> {
        if self.json {
            self.line(serde_json::to_vec(row)?)
        } else {
            self.row(show::cells(row))
        }
    }

    fn line(&mut self, line: Vec<u8>) -> Result<bool, Failure> {
        self.count += 1;
        let Some(limit) = self.limit else {
            return Ok(self.output.line(&line)?);
        };
        self.waiting.push_back(line);
        if self.waiting.len() > limit {
            self.waiting.pop_front();
        }
        Ok(true)
    }

    fn row(&mut self, row: Vec<String>) -> Result<bool, Failure> {
        self.count += 1;
        if let Some(layout) = &self.layout
            && self.limit.is_none()
        {
            return Ok(self.output.line(layout.line(&row).as_bytes())?);
        }
        self.rows.push_back(row);
        match self.limit {
            Some(limit) if self.rows.len() > limit => {
                self.rows.pop_front();
            }
            None if self.rows.len() >= SAMPLED => return self.print_rows(),
            Some(_) | None => {}
        }
        Ok(true)
    }

    /// Prints the rows that waited, below the heads if they are the first.
    fn print_rows(&mut self) -> Result<bool, Failure> {
        let rows = std::mem::take(&mut self.rows);
        let is_first = self.layout.is_none();
        let layout = self.layout.get_or_insert_with(|| {
            let all = std::iter::once(&self.heads).chain(&rows);
            Layout::of(all.map(Vec::as_slice), self.wanted)
        });
        let heads = is_first.then_some(&self.heads);
        for row in heads.into_iter().chain(&rows) {
            if !self.output.line(layout.line(row).as_bytes())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Prints what still waits.
    fn end(&mut self) -> Result<bool, Failure> {
        for line in std::mem::take(&mut self.waiting) {
            if !self.output.line(&line)? {
                return Ok(false);
            }
        }
        if !self.json && (!self.rows.is_empty() || self.layout.is_none()) {
            self.print_rows()?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<bool, Failure> {
        Ok(self.output.flush()?)
    }
}
