package service_test

import "strings"

// contentProofs are the parameters about what stands in a message.
func contentProofs() []proof {
	long := strings.Repeat("x", 150)
	bad := lettered(stranger, "Subject: bad", "", "bad body")
	parts := lettered(stranger, "Subject: parts", "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=aaaab", "",
		"--aaaab", "Content-Type: text/plain", "X-Part: bad", "", "text", "--aaaab--")
	nested := lettered(stranger, "Subject: outside", "MIME-Version: 1.0", "Content-Type: message/rfc822", "", "Subject: inside", "", "text")
	deep := lettered(stranger, "Subject: parts", "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=outer", "",
		"--outer", "Content-Type: multipart/mixed; boundary=inner", "", "--inner", "X-Part: bad", "", "text", "--inner--", "--outer--")
	lookalike := lettered(stranger, "Subject: parts", "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=aaaabbbbcccc", "",
		"--aaaabbbbcccc", "", "text", "--aaaabbbbdddd", "X-Part: bad", "", "text", "--aaaabbbbcccc--")
	hops := lettered(stranger, "Received: from a by b", "Received: from c by a", "Subject: x", "", "x")
	plain := lettered(stranger, "Subject: x", "X-Drop: y", "", "a~b")
	plainStored := stored("Subject: x", "X-Drop: y", "", "a~b")
	eight := lettered(stranger, "Subject: x", "", "\xfcber")
	const refuseBad = "mime_header_checks = regexp:{{/^X-Part: bad/ REJECT}}"
	return []proof{
		{"header_checks", unset, "regexp:{{/^Subject: bad/ REJECT}}", "", bad, "\n250 2.0.0", "\n550 5.7.1"},
		{"body_checks", unset, "regexp:{{/^bad/ REJECT}}", "", bad, "\n250 2.0.0", "\n550 5.7.1"},
		{"mime_header_checks", unset, "regexp:{{/^X-Part: bad/ REJECT}}", "", parts, "\n250 2.0.0", "\n550 5.7.1"},
		{"nested_header_checks", unset, "regexp:{{/^Subject: inside/ REJECT}}", "", nested, "\n250 2.0.0", "\n550 5.7.1"},
		{"cleanup_service_name", "cleanup", "strict-cleanup", "", bad, "\n250 2.0.0", "\n550 5.7.1"},
		{"body_checks_size_limit", unset, "4", "body_checks = regexp:{{/second/ REJECT}}", lettered(stranger, "Subject: x", "", "first line", "second line"), "\n550 5.7.1", "\n250 2.0.0"},
		{"line_length_limit", unset, "100", "body_checks = regexp:{{/x{150}/ REJECT}}", lettered(stranger, "Subject: x", "", long), "\n550 5.7.1", "\n250 2.0.0"},
		{"disable_mime_input_processing", "no", "yes", refuseBad, parts, "\n550 5.7.1", "\n250 2.0.0"},
		{"mime_nesting_limit", unset, "1", refuseBad, deep, "\n550 5.7.1", ""},
		{"mime_boundary_length_limit", unset, "8", refuseBad, lookalike, "\n250 2.0.0", "\n550 5.7.1"},
		{"header_size_limit", unset, "60", "", stored("Subject: "+long, "", "x"), long, ""},
		{"hopcount_limit", "50", "2", "", hops, "\n250 2.0.0", "too many hops"},
		{"message_size_limit", "10240000", "100", "", lettered(stranger, "Subject: x", "", long), "\n250 2.0.0", "\n552 5.3.4"},
		{"message_drop_headers", unset, "x-drop", "", plainStored, "X-Drop: y", ""},
		{"message_strip_characters", unset, "~", "", plainStored, "a~b", "\r\nab\r\n"},
		{"message_reject_characters", unset, "~", "", plain, "\n250 2.0.0", "\n550 5."},
		{"cleanup_replace_stray_cr_lf", "yes", "no", "", stored("Subject: x", "", "before\rafter"), "before after", "before\rafter"},
		{"always_add_missing_headers", "no", "yes", "", plain, "", "Message-Id: <"},
		{"local_header_rewrite_clients", unset, "permit_mynetworks", "", lettered(friend, "Subject: x", "", "x"), "", "Message-Id: <"},
		{"strict_7bit_headers", "no", "yes", "", lettered(stranger, "Subject: \xfcber", "", "x"), "\n250 2.0.0", "\n550 5.6.0"},
		{"strict_8bitmime_body", "no", "yes", "", eight, "\n250 2.0.0", "\n550 5.6.0"},
		{"strict_8bitmime", "no", "yes", "", eight, "\n250 2.0.0", "\n550 5.6.0"},
		{"strict_mime_encoding_domain", "no", "yes", "", lettered(stranger, "Subject: x", "MIME-Version: 1.0", "Content-Type: message/rfc822", "Content-Transfer-Encoding: base64", "", "eA=="), "\n250 2.0.0", "\n550 5.6.0"},
		{"smtpd_forbid_bare_newline", "no", "reject", "", lettered(stranger, "Subject: x", "", "a\nb"), "\n250 2.0.0", "\n550 5.5.2"},
		{"smtpd_forbid_bare_newline_exclusions", unset, stranger, "smtpd_forbid_bare_newline = reject", lettered(stranger, "Subject: x", "", "a\nb"), "\n550 5.5.2", "\n250 2.0.0"},
		{"smtpd_forbid_bare_newline_reject_code", unset, "521", "smtpd_forbid_bare_newline = reject", lettered(stranger, "Subject: x", "", "a\nb"), "\n550 5.5.2", "\n521 5.5.2"},
	}
}
