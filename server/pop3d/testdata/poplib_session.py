"""A session of Python's poplib with every command it knows."""
import poplib
import ssl
import sys

port = int(sys.argv[1])
dots = [b"Subject: dots", b"", b".", b"..", b".x"]

p = poplib.POP3("127.0.0.1", port, timeout=20)
assert "STLS" in p.capa() and "SASL" in p.capa(), p.capa()
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
p.stls(context)
p.user("alice")
try:
    p.pass_("wrong")
    raise AssertionError("wrong password accepted")
except poplib.error_proto as e:
    assert b"[AUTH]" in e.args[0], e
p.user("alice")
p.pass_("pw")
assert p.stat()[0] == 2
assert len(p.list()[1]) == 2
assert len(set(p.uidl()[1])) == 2
assert p.uidl(2).startswith(b"+OK 2 ")
assert p.retr(2)[1] == dots, p.retr(2)
assert p.top(2, 1)[1] == dots[:3], p.top(2, 1)
p.noop()
p.dele(1)
p.rset()
p.dele(1)
p.quit()

p = poplib.POP3("127.0.0.1", port, timeout=20)
p.apop("alice", "pw")
assert p.stat()[0] == 1
p.quit()
