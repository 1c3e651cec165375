use super::*;
use crate::bulk::submission::prepare;
use crate::bulk::{JobId, JobSource, Pool};
use crate::upload::UploadOptions;

fn prepared() -> PreparedJob {
    let (id, pool) = (JobId::new("a").unwrap(), Pool::new("films").unwrap());
    let source = JobSource::File { path: "/films/a".into() };
    prepare(vec![JobSpec::new(id, pool, source, None, UploadOptions::default())]).unwrap().remove(0)
}

#[test]
fn a_record_comes_back_from_its_json_with_its_number_and_its_sort_key() {
    let mut job = prepared();
    job.spec.sort_key = SortKey::from_bytes(vec![1, 2, 255]);
    let stored = StoredJob::new(&job, "c", UnixMillis::new(1));
    let read = StoredJob::decode(&stored.encode(), 17).unwrap();
    assert_eq!((read.number, read.spec.sort_key.as_bytes()), (17, &[1, 2, 255][..]));
    let again = StoredJob::decode(&read.encode(), 40).unwrap();
    assert_eq!(again.number, 17);
}

#[test]
fn a_record_of_another_format_is_not_read() {
    let flaw = |json: &str| StoredJob::decode(json.as_bytes(), 1).unwrap_err();
    assert_eq!(flaw("{\"v\":2,\"spec\":7}"), RecordFlaw::Format(2));
    assert_eq!(flaw("{\"v\":1}"), RecordFlaw::Damaged);
    assert_eq!(flaw("[]"), RecordFlaw::Damaged);
}
