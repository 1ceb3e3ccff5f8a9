//! Who acts, and names for what they do.

use std::ffi::CStr;

use pgrx::prelude::*;

use crate::setting;

/// The running version of the library.
#[pg_extern(immutable, parallel_safe)]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// A UUID version 7 (RFC 9562 section 5.7): ordered by time, also within one millisecond.
///
/// What is random of it comes from a generator that is seeded by the kernel when it is first used in a process. Nothing
/// may use it before the postmaster forks its sessions, such as `_PG_init`: they would all draw the same.
#[pg_extern(volatile, parallel_safe)]
pub fn uuid_v7() -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*uuid::Uuid::now_v7().as_bytes())
}

/// Who acts: `klaxon.principal` where the current role is a member of `klaxon_app`, else the role.
#[pg_extern(stable, parallel_safe)]
pub fn principal() -> String {
    named(current_role(), is_switched())
}

/// The same in a trigger of a table with that owner. What a foreign key has done there it did with the owner's
/// rights, and since 18 Postgres fires triggers with the rights that the row was changed with: who acts is then
/// who had them taken.
#[allow(unsafe_code)]
pub fn principal_behind(owner: pg_sys::Oid) -> String {
    if cfg!(feature = "pg18") && current_role() == owner && is_switched() {
        // SAFETY: reads a variable of this backend.
        return named(unsafe { pg_sys::GetOuterUserId() }, false);
    }
    principal()
}

fn named(role: pg_sys::Oid, is_switched: bool) -> String {
    match setting::PRINCIPAL.get() {
        Some(name) if !name.is_empty() && may_act_for_others(role, is_switched) => {
            name.to_string_lossy().into_owned()
        }
        _ => role_name(role),
    }
}

/// Whether the current role is that of a function rather than of the session.
#[allow(unsafe_code)]
fn is_switched() -> bool {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::InLocalUserIdChange() }
}

#[allow(unsafe_code)]
pub fn current_role() -> pg_sys::Oid {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::GetUserId() }
}

#[allow(unsafe_code)]
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: for an existing role the result is a palloc'd, NUL-terminated name; with
    // `noerr` false a role dropped under us is an ERROR, which unwinds.
    unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(role, false)).to_string_lossy().into_owned() }
}

#[allow(unsafe_code)]
fn may_act_for_others(role: pg_sys::Oid, is_switched: bool) -> bool {
    // SAFETY: catalog lookups inside a transaction; a missing role is InvalidOid.
    unsafe {
        let app = pg_sys::get_role_oid(c"klaxon_app".as_ptr(), true);
        // A superuser is a member of everything; but inside its SECURITY DEFINER function the
        // setting is the caller's, who is not.
        app != pg_sys::InvalidOid
            && (pg_sys::is_member_of_role_nosuper(role, app) || pg_sys::superuser_arg(role) && !is_switched)
    }
}

/// Whether the current role may do everything in the schema.
#[allow(unsafe_code)]
pub fn is_admin() -> bool {
    // SAFETY: catalog lookups inside a transaction; a missing role is InvalidOid.
    unsafe {
        let admin = pg_sys::get_role_oid(c"klaxon_admin".as_ptr(), true);
        admin != pg_sys::InvalidOid && pg_sys::has_privs_of_role(current_role(), admin)
    }
}

/// Runs something with the rights of the extension's owner, for the few functions that must first
/// know who calls them. What it runs is our own SQL with bound parameters.
#[allow(unsafe_code)]
pub fn as_owner<T>(work: impl FnOnce() -> T) -> T {
    let mut role = pg_sys::InvalidOid;
    let mut context = 0;
    // SAFETY: the same switch as a SECURITY DEFINER call makes. If `work` raises, the transaction's
    // or subtransaction's abort puts the role back, as Postgres does for its own callers.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"klaxon".as_ptr(), false);
        let relation = pg_sys::get_relname_relid(c"outbox".as_ptr(), schema);
        let owner = owner_of(relation);
        pg_sys::GetUserIdAndSecContext(&raw mut role, &raw mut context);
        pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
        let done = work();
        pg_sys::SetUserIdAndSecContext(role, context);
        done
    }
}

/// Runs somebody's SQL with that role's rights and none of ours: in the restricted context that Postgres
/// uses for index expressions, and with no object of any path but pg_catalog's.
#[allow(unsafe_code)]
pub fn run_as<T>(role: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let mut before = pg_sys::InvalidOid;
    let mut context = 0;
    // SAFETY: as in `as_owner`.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut before, &raw mut context);
        let narrowed = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
        pg_sys::SetUserIdAndSecContext(role, context | narrowed as i32);
        let done = restricted(work);
        pg_sys::SetUserIdAndSecContext(before, context);
        done
    }
}

/// Runs something with pg_catalog alone as its path. `pg_temp` stands last because left out it comes
/// first, for types and relations: who writes a watched table could put a `text` of its own there.
#[allow(unsafe_code)]
pub fn restricted<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the setting is put back at the end of its nest level, or by the abort of whatever
    // transaction or subtransaction an error ends.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            c"pg_catalog, pg_temp".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        let done = work();
        pg_sys::AtEOXact_GUC(false, level);
        done
    }
}

/// The role of that name, if there is one.
#[allow(unsafe_code)]
pub fn role_of_name(name: &str) -> Option<pg_sys::Oid> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a catalog lookup inside a transaction; a missing role is InvalidOid.
    let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (role != pg_sys::InvalidOid).then_some(role)
}

#[allow(unsafe_code)]
fn owner_of(relation: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: opening takes the lock that reading the relation's row needs.
    let relation = unsafe { pgrx::PgRelation::with_lock(relation, pg_sys::AccessShareLock as _) };
    // SAFETY: rd_rel is set for every open relation.
    unsafe { (*relation.rd_rel).relowner }
}

/// Whether a role could become another with SET ROLE, as a superuser could become any.
#[allow(unsafe_code)]
pub fn has_rights_of(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookups inside a transaction.
    unsafe { pg_sys::has_privs_of_role(role, other) }
}
