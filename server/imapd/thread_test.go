package imapd

import (
	"fmt"
	"strings"
	"testing"

	"postilion/store"
)

func threadMail(id, subject, references string, day int) string {
	text := fmt.Sprintf("From: a@example.com\nSubject: %s\nMessage-ID: <%s@x>\nDate: %02d Jan 2024 10:00:00 +0000\n", subject, id, day)
	if references != "" {
		text += "References: " + references + "\n"
	}
	return text + "\nbody\n"
}

func TestThread(t *testing.T) {
	r := newRig(t)
	for _, text := range []string{
		threadMail("a", "boats", "", 1),
		threadMail("b", "Re: boats", "<a@x>", 3),
		threadMail("c", "Re: boats", "<a@x>", 2),
		threadMail("d", "Re: boats", "<a@x> <b@x>", 4),
		threadMail("e", "cars", "<gone@x>", 5),
		threadMail("f", "Re: cars", "<gone@x>", 6),
		threadMail("g", "Re: boats", "", 7),
		threadMail("loop1", "loop", "<loop2@x>", 8),
		threadMail("loop2", "loop", "<loop1@x>", 9),
		threadMail("a", "twice", "", 10),
		threadMail("h", "", "not an id <also not> <@>", 11),
	} {
		deliver(t, r.store, "alice", store.Inbox, text, 0)
	}
	_, addr := r.listen(t)
	p := selectedPeer(t, addr)
	for command, want := range map[string]string{
		"THREAD REFERENCES UTF-8 ALL":     "* THREAD (1 (3)(2 4)(7))((5)(6))(9 8)(10)(11)\r\n",
		"THREAD ORDEREDSUBJECT UTF-8 ALL": "* THREAD (1 (3)(2)(4)(7))(5 6)(8 9)(10)(11)\r\n",
		"UID THREAD REFS UTF-8 2:4":       "* THREAD ((3)(2 4))\r\n",
		"THREAD REFS UTF-8 FROM nobody":   "* THREAD\r\n",
		"THREAD NOSUCH UTF-8 ALL":         "t BAD Error in IMAP command THREAD: Unknown thread algorithm.\r\n",
		"THREAD REFS NOSUCH ALL":          "t NO [BADCHARSET] Unknown charset\r\n",
		"THREAD REFS":                     "t BAD Error in IMAP command THREAD: Missing charset argument.\r\n",
	} {
		if got := p.do(command); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}
