//! Every limit that the machine holds commands to, with its unit and its reason.
//!
//! They are part of the replicated state's rules: a command over one is rejected on every node alike, so changing a number
//! needs the same care as a format change (a newer rule is used only once every member has it).

use crate::outcome::Reject;

/// Commands in one batch: one SQLite transaction of the write-behind (1,000 to 4,000 operations) should hold whole entries.
pub const COMMANDS_PER_BATCH_MAX: usize = 4_096;

/// Commands of one group: every task of a large project once.
pub const GROUP_COMMANDS_MAX: usize = 10_000;

/// Bytes of one block (lead, mark and text): a file over 1 MiB isn't synced, and a block is at most a whole file.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Bytes of all texts of one command: a whole file twice over (text and conflict values), with room for marks and leads.
pub const COMMAND_TEXT_BYTES_MAX: usize = 4 << 20;

/// Blocks of one change: a file of 1 MiB with ten bytes a line. Counted exactly where a change is made and where at least
/// [`BLOCKS_COUNTED_FROM`] blocks are inserted at once; smaller edits aren't counted, since counting costs a scan.
pub const BLOCKS_PER_CHANGE_MAX: usize = 100_000;

/// An edit with this many inserts or more pays for counting its change's blocks.
pub const BLOCKS_COUNTED_FROM: usize = 64;

/// Operations of one edit: every block of the largest change once.
pub const OPS_PER_EDIT_MAX: usize = 100_000;

/// Conflicts that one edit may record: a merge with more is a person's job, not a queue.
pub const CONFLICTS_PER_EDIT_MAX: usize = 10_000;

/// Bytes between a task's brackets: one character, or a word where a dialect uses words.
pub const MARK_BYTES_MAX: usize = 64;

/// Bytes of a task's note: a page of text; longer texts belong into the file.
pub const NOTE_BYTES_MAX: usize = 64 << 10;

/// Bytes of a name: project, author, assignee. Longer ones are mistakes, and are repeated in every version.
pub const NAME_BYTES_MAX: usize = 256;

/// Bytes of a change's path; Linux allows 4,096 for a whole path, and the checkout's root comes in front.
pub const PATH_BYTES_MAX: usize = 1_024;

/// Bytes of one segment of a path: what the common file systems allow.
pub const PATH_SEGMENT_BYTES_MAX: usize = 255;

/// Globs of a project; each is matched against each path of a scan.
pub const GLOBS_PER_PROJECT_MAX: usize = 64;

/// Live projects; all are listed at once.
pub const PROJECTS_MAX: usize = 10_000;

/// Live changes of a project: all paths are compared when one is added, and that happens while applying.
pub const CHANGES_PER_PROJECT_MAX: usize = 20_000;

/// Fields of one `SetTask`: each kind of field a few times.
pub const FIELDS_PER_COMMAND_MAX: usize = 16;

/// Bytes of a comment: a page of text.
pub const COMMENT_BYTES_MAX: usize = 64 << 10;

/// Live comments of one task; all are shown at once.
pub const COMMENTS_PER_TASK_MAX: usize = 1_000;

/// Requirements of a task: shown in one line.
pub const REQUIREMENTS_PER_TASK_MAX: usize = 256;

/// Longest lease of a claim, in milliseconds: a month. A claim is a promise to work on something now; who needs longer renews it.
pub const LEASE_MS_MAX: u64 = 31 * 24 * 60 * 60 * 1_000;

/// Live rollback points; all are listed at once.
pub const POINTS_MAX: usize = 10_000;

/// Blocks that one command deletes, from which on a rollback point is made with it: more lines than somebody takes out of a plan without a
/// second thought, and few enough that an agent that empties a file is always among them.
pub const MASS_DELETION_BLOCKS: usize = 25;

/// Records that one rollback may change. At some 2 KiB a record, in memory until they are in SQLite, half a gibibyte; and each makes at
/// most two of the 2^20 row changes that an entry can have. A larger state goes back project by project.
pub const ROLLBACK_RECORDS_MAX: usize = 250_000;

/// Bytes of a convention of marks in a policy: every status with several marks.
pub const CONVENTION_BYTES_MAX: usize = 1_024;

/// Labels of a task: shown in one line.
pub const LABELS_PER_TASK_MAX: usize = 64;

/// Bytes of a label.
pub const LABEL_BYTES_MAX: usize = 128;

/// Tasks that one task waits for.
pub const BLOCKED_BY_PER_TASK_MAX: usize = 64;

/// Tasks visited while looking for a cycle of blocked-by: bounds the time that one command takes while applying.
pub const BLOCKED_BY_WALK_MAX: usize = 10_000;

/// Things that one command may expect to be unchanged: a task, its change and its project, some times over.
pub const EXPECTED_PER_COMMAND_MAX: usize = 16;

/// Stale fields named in one outcome: enough to merge in one more round; more only make answers large.
pub const STALE_FIELDS_MAX: usize = 256;

/// Bytes of a fractional order key. Keys stay under ten bytes for edits as people make them; one this long means thousands of inserts
/// that each split the gap made by the last two.
pub const ORDER_KEY_BYTES_MAX: usize = 1_024;

/// Outcomes that a session remembers: requests that one client has under way at once.
pub const SESSION_WINDOW: u64 = 256;

/// Bytes of remembered outcomes per session; past it the oldest are forgotten early. One outcome of the largest change
/// (100,000 ids) fits.
pub const SESSION_BYTES_MAX: usize = 1 << 20;

/// Sessions at once; opening one more closes the one that was idle longest. With small outcomes and full windows about 100 MB.
pub const SESSIONS_MAX: usize = 8_192;

/// Entries after which an unused session expires: half an hour under full load, months on a quiet cluster.
pub const SESSION_IDLE_REVISIONS: u64 = 1 << 22;

/// How far, in milliseconds, a batch's stamp may lie ahead of the cluster time before a leader must refuse to stamp it. The machine can't
/// tell a wrong clock from a long pause, so it only keeps the maximum; the check is the leader's, against its own clock and its peers'.
pub const STAMP_AHEAD_MS_MAX: u64 = 10 * 60 * 1_000;

/// Refuses `actual` over `limit`.
pub(crate) fn check(what: &str, actual: usize, limit: usize) -> Result<(), Reject> {
    if actual <= limit {
        return Ok(());
    }
    let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    Err(Reject::OverLimit { what: what.to_owned(), actual: number(actual), limit: number(limit) })
}
