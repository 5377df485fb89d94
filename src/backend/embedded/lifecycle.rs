//! How a document's row begins, is deleted, comes back and is begun anew. A deleted document keeps its row for ever:
//! it is what keeps the name from coming back by itself. Its content stays until its time is over.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension};

use crate::name::DocumentName;

/// The tables that hold what a document has.
const CONTENT: [&str; 4] = ["log", "snapshot", "set_aside", "segment"];
/// Documents whose content goes in one transaction: others wait for it.
const EXPIRED_AT_ONCE: i64 = 100;
/// What stands as the end of the time of a document whose content is gone.
const GONE: i64 = 0;

/// A document's row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) id: i64,
    /// How often the name was begun anew.
    pub(super) generation: i64,
    /// Where it is deleted, until when its content is kept.
    pub(super) deleted: Option<i64>,
    /// When something was appended last.
    pub(super) changed: i64,
}

/// The row of this name.
pub(super) fn find(database: &Connection, name: &DocumentName) -> rusqlite::Result<Option<Row>> {
    database
        .prepare_cached("SELECT id, generation, deleted, changed FROM document WHERE name = ?1")?
        .query_row([name.as_str()], |row| {
            Ok(Row { id: row.get(0)?, generation: row.get(1)?, deleted: row.get(2)?, changed: row.get(3)? })
        })
        .optional()
}

/// A row for a name that has none.
pub(super) fn begin(database: &Connection, name: &DocumentName) -> rusqlite::Result<Row> {
    let id = database.prepare_cached("INSERT INTO document (name) VALUES (?1)")?.insert([name.as_str()])?;
    Ok(Row { id, generation: 0, deleted: None, changed: 0 })
}

/// Deletes a document; answers whether there was one, deleted or not.
pub(super) fn delete(database: &Connection, row: Option<Row>, keep_for: Duration) -> rusqlite::Result<bool> {
    let Some(Row { id, generation, deleted, .. }) = row else { return Ok(false) };
    // A row without content is that of a name which was begun anew, or of nothing.
    if deleted.is_none() && generation == 0 && !has_content(database, id)? {
        return Ok(false);
    }
    if keep_for.is_zero() {
        remove_content(database, id)?;
        set_deleted(database, id, Some(GONE))?;
    } else if deleted.is_none() {
        let keep_for = i64::try_from(keep_for.as_millis()).unwrap_or(i64::MAX);
        set_deleted(database, id, Some(now().saturating_add(keep_for)))?;
    }
    Ok(true)
}

/// Takes a deleted document back; answers whether its content was still kept.
pub(super) fn undelete(database: &Connection, row: Option<Row>) -> rusqlite::Result<bool> {
    match row {
        // Also where it has not been looked for what is to go yet.
        Some(Row { id, deleted: Some(until), .. }) if until > now() => {
            set_deleted(database, id, None)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Begins the name of a deleted document anew; answers whether it was one.
pub(super) fn create(database: &Connection, row: Option<Row>) -> rusqlite::Result<bool> {
    let Some(Row { id, generation, deleted: Some(_), .. }) = row else { return Ok(false) };
    remove_content(database, id)?;
    database
        .prepare_cached("UPDATE document SET deleted = NULL, generation = ?2, changed = 0 WHERE id = ?1")?
        .execute([id, generation + 1])?;
    Ok(true)
}

/// Notes that something was appended now, to the second, so that a document in use does not cost a write each time.
pub(super) fn note_change(database: &Connection, row: Row) -> rusqlite::Result<()> {
    let now = now();
    if now.abs_diff(row.changed) >= 1_000 {
        database.prepare_cached("UPDATE document SET changed = ?2 WHERE id = ?1")?.execute([row.id, now])?;
    }
    Ok(())
}

/// Removes the content of deleted documents whose time is over; answers whether there may be more of them.
pub(super) fn expire(database: &Connection) -> rusqlite::Result<bool> {
    let expired = database
        .prepare_cached("SELECT id FROM document WHERE deleted > ?1 AND deleted <= ?2 LIMIT ?3")?
        .query_map([GONE, now(), EXPIRED_AT_ONCE], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<i64>>>()?;
    for id in &expired {
        remove_content(database, *id)?;
        set_deleted(database, *id, Some(GONE))?;
    }
    Ok(expired.len() as i64 == EXPIRED_AT_ONCE)
}

fn has_content(database: &Connection, id: i64) -> rusqlite::Result<bool> {
    database
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM snapshot WHERE document = ?1)
                 OR EXISTS (SELECT 1 FROM log WHERE document = ?1)",
        )?
        .query_row([id], |row| row.get(0))
}

fn remove_content(database: &Connection, id: i64) -> rusqlite::Result<()> {
    for table in CONTENT {
        database.prepare_cached(&format!("DELETE FROM {table} WHERE document = ?1"))?.execute([id])?;
    }
    Ok(())
}

fn set_deleted(database: &Connection, id: i64, until: Option<i64>) -> rusqlite::Result<()> {
    database.prepare_cached("UPDATE document SET deleted = ?2 WHERE id = ?1")?.execute((id, until))?;
    Ok(())
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
