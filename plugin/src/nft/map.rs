//! Maps: sets whose elements lead to something.

use super::object::{self, ELEMENTS, ELEMENTS_SET, ELEMENTS_TABLE, Field};
use crate::netlink::attribute::{self, Attributes};

/// `linux/netfilter/nf_tables.h`: the attributes of sets and of their elements that only maps have, and `NFT_SET_MAP`.
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const ELEMENT_DATA: u16 = 2;
const IS_MAP: u32 = 8;

/// A map; its key and what it leads to are the concatenations of fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) name: String,
    pub(crate) key: Vec<Field>,
    pub(crate) data: Vec<Field>,
}

/// An element of a map. Both halves are as `key` makes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mapping {
    pub(crate) key: Vec<u8>,
    pub(crate) data: Vec<u8>,
    /// Only read.
    pub(crate) comment: Option<String>,
}

impl Map {
    /// `id` tells the map from other sets of one transaction.
    pub(super) fn write(&self, table: &str, id: u32) -> Attributes {
        let length = |fields: &[Field]| u32::try_from(object::length(fields)).expect("as many bytes as registers have");
        Attributes::default()
            .text(object::SET_TABLE, table)
            .text(object::SET_NAME, &self.name)
            .number(object::SET_FLAGS, IS_MAP)
            .number(object::SET_KEY_TYPE, object::kind(&self.key))
            .number(object::SET_KEY_LENGTH, length(&self.key))
            .number(SET_DATA_TYPE, object::kind(&self.data))
            .number(SET_DATA_LENGTH, length(&self.data))
            .number(object::SET_ID, id)
    }
}

impl Mapping {
    /// A list of elements, as one message has it.
    pub(super) fn write_all(mappings: &[Self], table: &str, map: &str) -> Attributes {
        let add = |list: Attributes, mapping: &Self| {
            let value = |bytes: &[u8]| Attributes::default().bytes(object::DATA_VALUE, bytes);
            let written = Attributes::default().nested(object::ELEMENT_KEY, value(&mapping.key));
            list.nested(object::LIST_ELEMENT, written.nested(ELEMENT_DATA, value(&mapping.data)))
        };
        let list = mappings.iter().fold(Attributes::default(), add);
        Attributes::default().text(ELEMENTS_TABLE, table).text(ELEMENTS_SET, map).nested(ELEMENTS, &list)
    }

    /// All that a message lists.
    pub(super) fn read_all(attributes: &[u8]) -> Vec<Self> {
        let list = attribute::find(attributes, ELEMENTS).unwrap_or_default();
        let value =
            |element, kind| Some(attribute::find(attribute::find(element, kind)?, object::DATA_VALUE)?.to_vec());
        let read = |element| {
            let (key, data) = (value(element, object::ELEMENT_KEY)?, value(element, ELEMENT_DATA)?);
            Some(Self { key, data, comment: object::comment_of_element(element) })
        };
        attribute::each(list).filter_map(|(_, element)| read(element)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::key;

    #[test]
    fn elements_are_read_as_they_were_written() {
        let key = key(&[(Field::Protocol, &[6]), (Field::Service, &80_u16.to_be_bytes())]);
        assert_eq!(key, [6, 0, 0, 0, 0, 80, 0, 0]);
        let mappings = [Mapping { key, data: vec![10, 87, 1, 2, 0, 80, 0, 0], comment: None }];
        assert_eq!(Mapping::read_all(Mapping::write_all(&mappings, "flatnet", "published").as_ref()), mappings);
    }
}
