use std::fs;
use std::os::unix::fs::symlink;

use raworc_core::program::FileEntry;
use tar::EntryType;

use super::*;

#[tokio::test]
async fn files_are_written_read_listed_and_taken_away() {
    let linked = Linked::new().await;
    let content = Bytes::from(vec![7; 3 << 20]);
    assert_eq!(linked.bytes("PUT", "/files?path=big%20file&mode=750", content.clone()).await.0, 204);
    let (status, read) = linked.bytes("GET", "/files?path=big+file", "").await;
    assert!(status == 200 && read == content);
    let listed: Vec<FileEntry> = linked.json("GET", "/files?path=.", &()).await;
    assert_eq!(listed.len(), 1, "no part of a file is left: {listed:?}");
    let FileEntry { name, kind, size, mode, modified_at } = &listed[0];
    assert_eq!((name.as_str(), kind.as_str(), *size, *mode), ("big file", "file", 3 << 20, 0o750));
    assert!(modified_at.is_some());
    assert_eq!(linked.bytes("DELETE", "/files?path=big+file", "").await.0, 204);
    assert_eq!(linked.refused("GET", "/files?path=big+file", "").await, (404, "not_found".into()));
}

#[tokio::test]
async fn files_of_the_kernel_are_read_though_they_tell_no_size() {
    let linked = Linked::new().await;
    let (status, text) = linked.bytes("GET", "/files?path=/proc/self/status", "").await;
    assert!(status == 200 && text.starts_with(b"Name:"), "{text:?}");
}

#[tokio::test]
async fn a_file_that_broke_off_on_its_way_changes_nothing() {
    let linked = Linked::new().await;
    linked.bytes("PUT", "/files?path=a", "old").await;
    let broken = futures::stream::iter([Ok(Frame::data(Bytes::from("new"))), Err(std::io::ErrorKind::Other.into())]);
    let request = Request::put("http://computer/files?path=a").body(StreamBody::new(broken).boxed_unsync());
    let _ = linked.sender.clone().send_request(request.expect("a request")).await;
    let listed = async {
        loop {
            let listed: Vec<FileEntry> = linked.json("GET", "/files?path=.", &()).await;
            if listed.len() == 1 {
                break;
            }
        }
    };
    timeout(Duration::from_secs(10), listed).await.expect("the part is taken away");
    assert_eq!(linked.bytes("GET", "/files?path=a", "").await, (200, "old".into()));
}

#[tokio::test]
async fn what_files_cannot_do_has_a_code() {
    let linked = Linked::new().await;
    fs::create_dir(linked.home.path().join("d")).expect("made");
    fs::write(linked.home.path().join("d/f"), "x").expect("written");
    assert_eq!(linked.refused("PUT", "/files?path=d", "x").await, (409, "is_directory".into()));
    assert_eq!(linked.refused("PUT", "/files?path=no/where", "x").await, (404, "not_found".into()));
    assert_eq!(linked.refused("PUT", "/files?path=d/f/g", "x").await, (409, "not_directory".into()));
    assert_eq!(linked.refused("DELETE", "/files?path=d", "").await, (409, "directory_not_empty".into()));
    assert_eq!(linked.refused("GET", "/files", "").await, (400, "invalid".into()));
    assert_eq!(linked.refused("GET", "/files?path=a%00b", "").await, (400, "invalid".into()));
    assert_eq!(linked.refused("PUT", "/files?path=a&mode=9", "").await, (400, "invalid".into()));
    assert_eq!(linked.bytes("DELETE", "/files?path=d&recursive=true", "").await.0, 204);
}

#[tokio::test]
async fn a_link_to_a_file_stays_a_link_when_it_is_written() {
    let linked = Linked::new().await;
    linked.bytes("PUT", "/files?path=a", "old").await;
    symlink("a", linked.home.path().join("b")).expect("linked");
    linked.bytes("PUT", "/files?path=b", "new").await;
    assert_eq!(linked.bytes("GET", "/files?path=a", "").await.1, "new");
    assert!(linked.home.path().join("b").is_symlink());
}

#[tokio::test]
async fn a_tree_travels_as_tar_with_links_and_modes() {
    let linked = Linked::new().await;
    let from = linked.home.path().join("from");
    fs::create_dir_all(from.join("sub/empty")).expect("made");
    fs::write(from.join("sub/big"), vec![3; 1 << 20]).expect("written");
    symlink("sub/big", from.join("link")).expect("linked");
    let (status, tar) = linked.bytes("GET", "/archive?path=from", "").await;
    assert_eq!(status, 200);
    assert_eq!(linked.bytes("PUT", "/archive?path=to/new", tar).await.0, 204);
    let to = linked.home.path().join("to/new");
    assert_eq!(fs::read(to.join("link")).expect("read").len(), 1 << 20);
    assert!(to.join("link").is_symlink() && to.join("sub/empty").is_dir());
    assert_eq!(linked.refused("GET", "/archive?path=gone", "").await, (404, "not_found".into()));
}

#[tokio::test]
async fn a_file_with_holes_travels_as_a_plain_file() {
    let linked = Linked::new().await;
    let holes = fs::File::create(linked.home.path().join("holes")).expect("made");
    holes.set_len(1 << 20).expect("grown");
    for path in ["holes", "."] {
        let (_, bytes) = linked.bytes("GET", &format!("/archive?path={path}"), "").await;
        let mut archive = tar::Archive::new(bytes.as_ref());
        let entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
        let kinds: Vec<_> = entries.map(|entry| (entry.header().entry_type(), entry.size())).collect();
        assert!(kinds.contains(&(EntryType::Regular, 1 << 20)), "{path}: {kinds:?}");
    }
}

#[tokio::test]
async fn what_the_kernel_shows_of_itself_and_devices_are_no_part_of_an_archive() {
    let linked = Linked::new().await;
    for path in ["/proc", "/sys", "/proc/self", "/dev"] {
        let (status, bytes) = linked.bytes("GET", &format!("/archive?path={path}"), "").await;
        assert_eq!(status, 200, "{path}");
        let mut archive = tar::Archive::new(bytes.as_ref());
        let entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
        let names: Vec<_> = entries.map(|entry| entry.path().expect("a name").into_owned()).collect();
        assert_eq!(names[0], Path::new("./"), "{path}");
        assert!(path == "/dev" || names.len() == 1, "{path}: {names:?}");
        assert!(!names.contains(&"./null".into()), "{path}: {names:?}");
    }
}

fn tar_of(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for &(name, kind, rest) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        // Written by hand, for the builder refuses such names.
        header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
        let content = if kind == EntryType::Regular { rest } else { "" };
        if kind != EntryType::Regular {
            header.set_link_name_literal(rest).expect("a link");
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("appended");
    }
    builder.into_inner().expect("a tar")
}

#[tokio::test]
async fn an_archive_writes_nothing_outside_of_its_directory() {
    use EntryType::{Fifo, Link, Regular, Symlink};
    let linked = Linked::new().await;
    let outside = linked.home.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("file"), "untouched").expect("written");
    let absolute = outside.join("new").display().to_string();
    let absolute_dir = outside.display().to_string();
    for entries in [
        vec![("../outside/new", Regular, "x")],
        vec![("a/../../outside/new", Regular, "x")],
        vec![(absolute.as_str(), Regular, "x")],
        vec![("door", Symlink, "../outside"), ("door/new", Regular, "x")],
        vec![("door", Symlink, absolute_dir.as_str()), ("door/new", Regular, "x")],
        vec![("file", Symlink, "../outside/file"), ("file", Regular, "x")],
        vec![("file", Link, "../outside/file"), ("file", Regular, "x")],
        vec![("pipe", Fifo, "")],
    ] {
        let (status, _) = linked.bytes("PUT", "/archive?path=in", tar_of(&entries)).await;
        assert!(!outside.join("new").exists(), "{entries:?}: {status}");
        assert_eq!(fs::read_to_string(outside.join("file")).expect("there"), "untouched", "{entries:?}");
        assert!(!linked.home.path().join("in/pipe").exists());
    }
    let up = tar_of(&[("../outside/new", Regular, "x")]);
    assert_eq!(linked.refused("PUT", "/archive?path=in", up).await, (400, "unsafe_path".into()));
    assert_eq!(linked.refused("PUT", "/archive?path=in", vec![b'x'; 700]).await.0, 400);
}
