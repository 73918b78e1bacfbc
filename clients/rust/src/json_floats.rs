//! Checks that a value contains only floats that JSON can represent. serde_json writes NaN and infinities as null, which is a different
//! value.

use std::fmt;

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

/// Why a value cannot be written as JSON: it contains NaN or an infinity, or its serialization fails.
#[derive(Debug)]
pub struct NotJson(String);

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotJson {}

impl Error for NotJson {
    fn custom<T: fmt::Display>(what: T) -> NotJson {
        NotJson(what.to_string())
    }
}

/// Checks every float of a value.
pub fn check<T: Serialize + ?Sized>(value: &T) -> Result<(), NotJson> {
    value.serialize(Floats)
}

struct Floats;

macro_rules! passes {
    ($($method:ident($of:ty)),* $(,)?) => {$(
        fn $method(self, _: $of) -> Result<(), NotJson> {
            Ok(())
        }
    )*};
}

macro_rules! elements {
    ($($of:ident::$method:ident),* $(,)?) => {$(
        impl $of for Floats {
            type Ok = ();
            type Error = NotJson;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotJson> {
                check(value)
            }
            fn end(self) -> Result<(), NotJson> {
                Ok(())
            }
        }
    )*};
}

macro_rules! fields {
    ($($of:ident),* $(,)?) => {$(
        impl $of for Floats {
            type Ok = ();
            type Error = NotJson;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), NotJson> {
                check(value)
            }
            fn end(self) -> Result<(), NotJson> {
                Ok(())
            }
        }
    )*};
}

elements!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
);
fields!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Floats {
    type Ok = ();
    type Error = NotJson;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NotJson> {
        check(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotJson> {
        check(value)
    }

    fn end(self) -> Result<(), NotJson> {
        Ok(())
    }
}

impl Serializer for Floats {
    type Ok = ();
    type Error = NotJson;
    type SerializeSeq = Floats;
    type SerializeTuple = Floats;
    type SerializeTupleStruct = Floats;
    type SerializeTupleVariant = Floats;
    type SerializeMap = Floats;
    type SerializeStruct = Floats;
    type SerializeStructVariant = Floats;

    passes!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8]),
        serialize_unit_struct(&'static str),
    );

    fn serialize_f32(self, value: f32) -> Result<(), NotJson> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), NotJson> {
        if value.is_finite() { Ok(()) } else { Err(NotJson("NaN or an infinite number is no JSON".to_owned())) }
    }

    fn serialize_none(self) -> Result<(), NotJson> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotJson> {
        check(value)
    }

    fn serialize_unit(self) -> Result<(), NotJson> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), NotJson> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), NotJson> {
        check(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotJson> {
        check(value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Floats, NotJson> {
        Ok(Floats)
    }

    fn serialize_tuple(self, _: usize) -> Result<Floats, NotJson> {
        Ok(Floats)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Floats, NotJson> {
        Ok(Floats)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Floats, NotJson> {
        Ok(Floats)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Floats, NotJson> {
        Ok(Floats)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Floats, NotJson> {
        Ok(Floats)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Floats, NotJson> {
        Ok(Floats)
    }
}
