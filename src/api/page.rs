//! Lists come in pages.

use serde::{Deserialize, Serialize};

use super::lenient::misshapen_as_default;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items of this page.
    pub data: Vec<T>,
    /// Which page of how many it is.
    #[serde(default, deserialize_with = "misshapen_as_default")]
    pub pagination: Pagination,
}

/// Which page of how many. Pages are counted from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Pagination {
    /// The number of this page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_page: Option<u64>,
    /// How many items this page has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_page_items: Option<u64>,
    /// How many items a page has at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u64>,
    /// How many pages there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_total: Option<u64>,
    /// How many items there are on all pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items_total: Option<u64>,
    /// The addresses of other pages.
    #[serde(default, deserialize_with = "misshapen_as_default", skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
}

/// The address of another page, relative or absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// `self`, `first`, `previous`, `next` or `last`.
    pub rel: String,
    /// The address.
    pub uri: String,
}

/// Which end of a list comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SortOrder {
    /// The least first.
    Asc,
    /// The greatest first.
    Desc,
}

impl<T> Page<T> {
    /// The number of the page after this one; `None` on the last, or when nobody can tell.
    pub fn next_page(&self) -> Option<u64> {
        let Pagination { current_page, pages_total, .. } = self.pagination;
        let current_page = current_page?;
        (current_page < pages_total?).then_some(current_page + 1)
    }
}

impl SortOrder {
    /// As the query string says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            SortOrder::Asc => "asc",
            SortOrder::Desc => "desc",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_page_knows_whether_another_one_follows() {
        let page = |current: u64, total: u64| -> Page<String> {
            from_value(json!({"data": ["a"], "pagination": {
                "currentPage": current, "currentPageItems": 1, "pageSize": 25, "pagesTotal": total,
                "itemsTotal": 26, "links": [{"rel": "self", "uri": "/videos?currentPage=1&pageSize=25"}],
            }}))
            .unwrap()
        };
        assert_eq!(page(1, 2).next_page(), Some(2));
        assert_eq!(page(2, 2).next_page(), None);
        assert_eq!(page(1, 2).pagination.links[0].rel, "self");
    }

    #[test]
    fn links_may_be_an_object_and_pagination_may_be_missing_but_data_may_not() {
        let odd = json!({"data": [], "pagination": {"currentPage": 1, "links": {"rel": "self"}}});
        assert_eq!(from_value::<Page<String>>(odd).unwrap().pagination.current_page, Some(1));
        assert_eq!(from_value::<Page<String>>(json!({"data": []})).unwrap().next_page(), None);
        assert!(from_value::<Page<String>>(json!({"title": "an error in a 200"})).is_err());
    }
}
