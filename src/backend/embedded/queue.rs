//! The queue of notifications: each has a row until it is removed.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;

use super::lifecycle::now;
use crate::backend::{Again, CLAIMED_FOR, Exchange, Exchanged, Notification};

/// Changes the queue, and takes out what is due.
pub(super) fn exchange(database: &Connection, exchange: &Exchange) -> rusqlite::Result<Exchanged> {
    let Exchange { add, most, remove, again, claim } = exchange;
    for id in remove {
        database.prepare_cached("DELETE FROM notification WHERE id = ?1")?.execute([id])?;
    }
    for Again { id, tries, after } in again {
        database.prepare_cached("UPDATE notification SET due = ?2, tries = ?3 WHERE id = ?1")?.execute((
            id,
            in_future(*after),
            tries,
        ))?;
    }
    let dropped = self::add(database, add, *most)?;
    let claimed = self::claim(database, *claim)?;
    Ok(Exchanged { dropped, claimed, waiting: count(database)? })
}

/// Answers how many there was no space for.
fn add(database: &Connection, add: &[Notification], most: usize) -> rusqlite::Result<usize> {
    if add.is_empty() {
        return Ok(0);
    }
    let mut space = most.saturating_sub(count(database)?);
    let mut dropped = 0;
    let mut is_there = database.prepare_cached("SELECT EXISTS (SELECT 1 FROM notification WHERE id = ?1)")?;
    for Notification { id, body, tries } in add {
        if is_there.query_row([id], |row| row.get(0))? {
            continue;
        }
        if space == 0 {
            dropped += 1;
            continue;
        }
        space -= 1;
        database
            .prepare_cached("INSERT INTO notification (id, due, tries, body) VALUES (?1, ?2, ?3, ?4)")?
            .execute((id, now(), tries, &**body))?;
    }
    Ok(dropped)
}

fn claim(database: &Connection, most: usize) -> rusqlite::Result<Vec<Notification>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let claimed = database
        .prepare_cached("SELECT id, body, tries FROM notification WHERE due <= ?1 ORDER BY due, id LIMIT ?2")?
        .query_map([now(), most], |row| {
            let body = Bytes::from(row.get::<_, Vec<u8>>(1)?);
            Ok(Notification { id: row.get(0)?, body, tries: row.get(2)? })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for notification in &claimed {
        database
            .prepare_cached("UPDATE notification SET due = ?2 WHERE id = ?1")?
            .execute((&notification.id, in_future(CLAIMED_FOR)))?;
    }
    Ok(claimed)
}

fn count(database: &Connection) -> rusqlite::Result<usize> {
    let count: i64 =
        database.prepare_cached("SELECT count(*) FROM notification")?.query_row([], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// So long from now, in milliseconds since 1970.
fn in_future(after: Duration) -> i64 {
    now().saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX))
}
