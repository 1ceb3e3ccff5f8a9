//! `jsonb` read where it lies: no `serde_json` in between, which would refuse a depth of 128 and
//! `1e400`, and round a number of 25 digits, all of which are legal payloads.

use std::ffi::CStr;

use klaxon_model::payload::Payload;
use pgrx::datum::{Datum, UnboxDatum};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum};

/// The text Postgres prints for a `jsonb` datum.
#[allow(unsafe_code)]
pub fn to_text(jsonb: pg_sys::Datum) -> String {
    // SAFETY: the datum is a jsonb that the caller got from Postgres; jsonb_out returns a palloc'd,
    // NUL-terminated string in the server's encoding.
    unsafe {
        let text = pgrx::direct_function_call_as_datum(pg_sys::jsonb_out, &[Some(jsonb)])
            .expect("jsonb_out returns a string");
        CStr::from_ptr(text.cast_mut_ptr()).to_string_lossy().into_owned()
    }
}

/// A jsonb column as the text Postgres prints.
pub struct JsonbText(pub String);

impl FromDatum for JsonbText {
    #[allow(unsafe_code)]
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type: pg_sys::Oid,
    ) -> Option<Self> {
        (!is_null).then(|| Self(to_text(datum)))
    }
}

impl IntoDatum for JsonbText {
    #[allow(unsafe_code)]
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let text = std::ffi::CString::new(self.0).ok()?;
        // SAFETY: jsonb_in takes a C string and copies what it keeps.
        unsafe {
            pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(text.as_ptr()))])
        }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: the value is copied out of the datum and borrows nothing.
#[allow(unsafe_code)]
unsafe impl UnboxDatum for JsonbText {
    type As<'src> = Self;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Self::As<'src>
    where
        Self: 'src,
    {
        Self(to_text(datum.sans_lifetime()))
    }
}

// SAFETY: Postgres calls a function declared with jsonb with a jsonb.
#[allow(unsafe_code)]
unsafe impl<'fcx> pgrx::callconv::ArgAbi<'fcx> for JsonbText {
    unsafe fn unbox_arg_unchecked(argument: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: as the caller promises.
        unsafe { argument.unbox_arg_using_from_datum().expect("an argument that is not null") }
    }
}

// SAFETY: it says jsonb, which is what the conversions above take and make.
#[allow(unsafe_code)]
unsafe impl SqlTranslatable for JsonbText {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(JsonbText);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

/// A payload, detoasted.
pub struct JsonbPayload {
    root: *mut pg_sys::JsonbContainer,
    datum: pg_sys::Datum,
}

impl JsonbPayload {
    /// Detoasts a datum of type `jsonb`.
    ///
    /// # Safety
    /// `datum` is a non-null jsonb, and the result is not used after the current memory context
    /// is reset.
    #[allow(unsafe_code)]
    pub unsafe fn new(datum: pg_sys::Datum) -> Self {
        // SAFETY: as the caller promises; detoasting copies where it must.
        unsafe {
            let jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::Jsonb>();
            Self { root: &raw mut (*jsonb).root, datum: pg_sys::Datum::from(jsonb) }
        }
    }

    /// The detoasted datum.
    pub fn datum(&self) -> pg_sys::Datum {
        self.datum
    }

    #[allow(unsafe_code)]
    fn field(&self, name: &str) -> Option<pg_sys::JsonbValue> {
        // SAFETY: getKeyJsonValueFromContainer may be asked only of an object; it fills the value
        // it is given and returns it, or null where there is no such key. What the value points
        // to lies inside the detoasted datum.
        unsafe {
            if (*self.root).header & pg_sys::JB_FOBJECT == 0 {
                return None;
            }
            let mut value = std::mem::zeroed::<pg_sys::JsonbValue>();
            let found = pg_sys::getKeyJsonValueFromContainer(
                self.root,
                name.as_ptr().cast(),
                name.len() as i32,
                &raw mut value,
            );
            (!found.is_null()).then_some(value)
        }
    }
}

#[allow(unsafe_code)]
fn string(value: &pg_sys::JsonbValue) -> Option<String> {
    if value.type_ != pg_sys::jbvType::jbvString {
        return None;
    }
    // SAFETY: the tag says which member of the union is set.
    let bytes = unsafe {
        let string = value.val.string;
        std::slice::from_raw_parts(string.val.cast::<u8>(), string.len as usize)
    };
    Some(String::from_utf8_lossy(bytes).into_owned())
}

#[allow(unsafe_code)]
fn number(value: &pg_sys::JsonbValue) -> Option<String> {
    if value.type_ != pg_sys::jbvType::jbvNumeric {
        return None;
    }
    // SAFETY: the tag says which member of the union is set; numeric_out returns a palloc'd string.
    unsafe {
        let text = pgrx::direct_function_call_as_datum(
            pg_sys::numeric_out,
            &[Some(pg_sys::Datum::from(value.val.numeric))],
        )?;
        Some(CStr::from_ptr(text.cast_mut_ptr()).to_string_lossy().into_owned())
    }
}

#[allow(unsafe_code)]
fn boolean(value: &pg_sys::JsonbValue) -> Option<bool> {
    if value.type_ != pg_sys::jbvType::jbvBool {
        return None;
    }
    // SAFETY: the tag says which member of the union is set.
    Some(unsafe { value.val.boolean })
}

impl Payload for JsonbPayload {
    fn present(&self, field: &str) -> bool {
        self.field(field).is_some_and(|value| value.type_ != pg_sys::jbvType::jbvNull)
    }

    fn text(&self, field: &str) -> Option<String> {
        let value = self.field(field)?;
        string(&value).or_else(|| number(&value)).or_else(|| boolean(&value).map(|b| b.to_string()))
    }

    fn number(&self, field: &str) -> Option<f64> {
        number(&self.field(field)?)?.parse().ok()
    }

    fn integer(&self, field: &str) -> Option<i64> {
        number(&self.field(field)?)?.parse().ok()
    }

    fn boolean(&self, field: &str) -> Option<bool> {
        boolean(&self.field(field)?)
    }

    #[allow(unsafe_code)]
    fn texts(&self, field: &str) -> Vec<String> {
        let Some(value) = self.field(field) else { return Vec::new() };
        if let Some(one) = string(&value) {
            return vec![one];
        }
        if value.type_ != pg_sys::jbvType::jbvBinary {
            return Vec::new();
        }
        // SAFETY: jbvBinary is a container inside the detoasted datum; getIth… may be asked only
        // of an array, below its length, and returns a palloc'd value.
        unsafe {
            let container = value.val.binary.data;
            if (*container).header & pg_sys::JB_FARRAY == 0 {
                return Vec::new();
            }
            let length = (*container).header & pg_sys::JB_CMASK;
            (0..length)
                .filter_map(|i| {
                    let element = pg_sys::getIthJsonbValueFromContainer(container, i);
                    element.as_ref().and_then(string)
                })
                .collect()
        }
    }
}
