"""A session of Python's imaplib: login, mailbox, append, search, fetch, store, copy, expunge, idle-less logout."""
import imaplib
import sys
import time

c = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]))
assert "IDLE" in c.capabilities, c.capabilities


def ok(answer):
    assert answer[0] == "OK", answer
    return answer[1]


ok(c.login("alice", "pw"))
ok(c.create("Letters"))
text = b"From: ann@example.com\r\nSubject: first\r\n\r\nhello\r\n"
for _ in range(3):
    ok(c.append("Letters", r"(\Seen)", imaplib.Time2Internaldate(time.time()), text))
assert ok(c.select("Letters")) == [b"3"]
assert ok(c.search(None, "SUBJECT", '"first"')) == [b"1 2 3"]
assert ok(c.uid("SEARCH", None, "BODY", "hello")) == [b"1 2 3"]
assert ok(c.fetch("2", "(RFC822)"))[0][1] == text
assert ok(c.fetch("1:2", "(FLAGS UID)")) == [rb"1 (FLAGS (\Seen \Recent) UID 1)", rb"2 (FLAGS (\Seen \Recent) UID 2)"]
ok(c.store("1", "+FLAGS", r"(\Deleted)"))
ok(c.copy("3", "INBOX"))
assert ok(c.expunge()) == [b"1"]
assert ok(c.status("Letters", "(MESSAGES UIDNEXT)")) == [b"Letters (MESSAGES 2 UIDNEXT 4)"]
assert sorted(ok(c.list())) == [rb'(\HasNoChildren) "/" INBOX', rb'(\HasNoChildren) "/" Letters']
ok(c.close())
ok(c.rename("Letters", "Post"))
ok(c.delete("Post"))
assert c.logout()[0] == "BYE"
print("all well")
