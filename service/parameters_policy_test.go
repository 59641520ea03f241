package service_test

// replyProofs are the parameters that give codes and texts of refusals.
func replyProofs() []proof {
	elsewhere := rcpt("a@good.test", "x@elsewhere.test")
	ours := rcpt("a@good.test", "USER")
	bounce := session("EHLO client.test", "MAIL FROM:<>", "RCPT TO:<USER>", "RCPT TO:<u0@example.test>", "DATA")
	return []proof{
		{"access_map_reject_code", "554", "541", "smtpd_sender_restrictions = check_sender_access inline:{good.test=REJECT}", ours, "\n554 5.7.1", "\n541 5.7.1"},
		{"access_map_defer_code", "450", "441", "smtpd_sender_restrictions = check_sender_access inline:{good.test=DEFER}", ours, "\n450 4.7.1", "\n441 4.7.1"},
		{"reject_code", "554", "541", "smtpd_sender_restrictions = reject", ours, "\n554 5.7.1", "\n541 5.7.1"},
		{"defer_code", "450", "441", "smtpd_sender_restrictions = defer", ours, "\n450 4.3.2", "\n441 4.3.2"},
		{"invalid_hostname_reject_code", "501", "541", "smtpd_helo_restrictions = reject_invalid_helo_hostname", session("EHLO -bad-", "MAIL FROM:<>", "RCPT TO:<USER>"), "\n501 5.5.2", "\n541 5.5.2"},
		{"non_fqdn_reject_code", "504", "541", "smtpd_sender_restrictions = reject_non_fqdn_sender", rcpt("a@short", "USER"), "\n504 5.5.2", "\n541 5.5.2"},
		{"plaintext_reject_code", "450", "541", "smtpd_sender_restrictions = reject_plaintext_session", ours, "\n450 4.7.1", "\n541 5.7.1"},
		{"multi_recipient_bounce_reject_code", "550", "541", "smtpd_data_restrictions = reject_multi_recipient_bounce", bounce, "\n550 5.5.3", "\n541 5.5.3"},
		{"relay_domains_reject_code", "554", "541", "", elsewhere, "\n554 5.7.1", "\n541 5.7.1"},
		{"unknown_address_reject_code", "450", "550", "smtpd_sender_restrictions = reject_unknown_sender_domain", rcpt("a@nosuch.test", "USER"), "\n450 4.1.8", "\n550 5.1.8"},
		{"unknown_client_reject_code", "450", "550", "smtpd_client_restrictions = reject_unknown_client_hostname", ours, "\n450 4.7.25", "\n550 5.7.25"},
		{"unknown_hostname_reject_code", "450", "550", "smtpd_helo_restrictions = reject_unknown_helo_hostname", session("EHLO nosuch.test", "MAIL FROM:<>", "RCPT TO:<USER>"), "\n450 4.7.1", "\n550 5.7.1"},
		{"unknown_local_recipient_reject_code", "550", "541", "mydestination = local.test\nlocal_recipient_maps = inline:{known=x}", rcpt("", "x@local.test"), "\n550 5.1.1", "\n541 5.1.1"},
		{"unknown_relay_recipient_reject_code", "550", "541", "relay_domains = relay.test\nrelay_recipient_maps = inline:{a@relay.test=x}", rcpt("", "x@relay.test"), "\n550 5.1.1", "\n541 5.1.1"},
		{"unknown_virtual_alias_reject_code", "550", "541", "virtual_alias_domains = alias.test", rcpt("", "x@alias.test"), "\n550 5.1.1", "\n541 5.1.1"},
		{"unknown_virtual_mailbox_reject_code", "550", "541", "", rcpt("", "nobody@example.test"), "\n550 5.1.1", "\n541 5.1.1"},
		{"maps_rbl_reject_code", "554", "541", "smtpd_client_restrictions = reject_rbl_client rbl.test", ours, "\n554 5.7.1 Service unavailable; Client host [127.0.0.2] blocked using rbl.test; the reason", "\n541 5.7.1"},
		{"default_rbl_reply", unset, "554 5.7.9 not you, $client_address", "smtpd_client_restrictions = reject_rbl_client rbl.test", ours, "\n554 5.7.1 Service", "\n554 5.7.9 not you, 127.0.0.2"},
		{"rbl_reply_maps", unset, "inline:{{rbl.test=554 5.7.8 by table}}", "smtpd_client_restrictions = reject_rbl_client rbl.test", ours, "\n554 5.7.1 Service", "\n554 5.7.8 by table"},
		{"maps_rbl_domains", unset, "rbl.test", "smtpd_client_restrictions = reject_maps_rbl", ours, "\n250 2.1.5", "\n554 5.7.1 Service"},
		{"smtpd_expansion_filter", unset, "0123456789", "smtpd_client_restrictions = reject_rbl_client rbl.test\ndefault_rbl_reply = 554 5.7.9 not $client_address", ours, "not 127.0.0.2", "not 127_0_0_2"},
		{"show_user_unknown_table_name", "yes", "no", "", rcpt("", "nobody@example.test"), "User unknown in virtual mailbox table", "User unknown\n"},
		{"soft_bounce", "no", "yes", "", elsewhere, "\n554 5.7.1", "\n454 4.7.1"},
		{"smtpd_reject_footer", unset, "ask our postmaster", "", elsewhere, "\n554 5.7.1 <", "\n554 5.7.1 ask our postmaster"},
		{"smtpd_reject_footer_maps", unset, "regexp:{{/^554/ another footer}}", "", elsewhere, "\n554 5.7.1 <", "\n554 5.7.1 another footer"},
	}
}

// verifyProofs are the parameters of address verification and of answers that the DNS does not give.
func verifyProofs() []proof {
	const (
		recipient = "smtpd_recipient_restrictions = reject_unverified_recipient"
		sender    = "smtpd_sender_restrictions = reject_unverified_sender"
		gone      = "\ntransport_maps = inline:{gone.test=error:gone}\nrelay_domains = gone.test"
		broken    = "smtpd_sender_restrictions = reject_unknown_sender_domain, reject"
	)
	ours, lost := rcpt("a@good.test", "USER"), rcpt("a@good.test", "x@gone.test")
	lostSender, brokenSender := rcpt("a@gone.test", "USER"), rcpt("a@x.broken.test", "USER")
	return []proof{
		{"unverified_recipient_defer_code", "450", "441", recipient, ours, "\n450 4.1.1", "\n441 4.1.1"},
		{"unverified_recipient_reject_code", "450", "541", recipient + gone, lost, "\n450 4.1.1", "\n541 5.1.1"},
		{"unverified_recipient_reject_reason", unset, "it is gone for good", recipient + gone, lost, "undeliverable address: gone", "rejected: it is gone for good"},
		{"unverified_recipient_tempfail_action", "defer_if_permit", "defer", recipient + ", reject", ours, "\n554 5.7.1", "\n450 4.1.1"},
		{"unverified_sender_defer_code", "450", "441", sender, ours, "\n450 4.1.7", "\n441 4.1.7"},
		{"unverified_sender_reject_code", "450", "541", sender + gone, lostSender, "\n450 4.1.7", "\n541 5.1.7"},
		{"unverified_sender_reject_reason", unset, "it is gone for good", sender + gone, lostSender, "undeliverable address: gone", "rejected: it is gone for good"},
		{"unverified_sender_tempfail_action", "defer_if_permit", "defer", sender + ", reject", ours, "\n554 5.7.1", "\n450 4.1.7"},
		{"unknown_address_tempfail_action", "defer_if_permit", "defer", broken, brokenSender, "\n554 5.7.1", "\n450 4.1.8"},
		{"reject_tempfail_action", "defer_if_permit", "defer", broken, brokenSender, "\n554 5.7.1", "\n450 4.1.8"},
		{"unknown_helo_hostname_tempfail_action", "defer_if_permit", "defer", "smtpd_helo_restrictions = reject_unknown_helo_hostname, reject", session("EHLO x.broken.test", "MAIL FROM:<>", "RCPT TO:<USER>"), "\n554 5.7.1", "\n450 4.7.1"},
	}
}

// restrictionProofs are the lists of restrictions and what they depend on.
func restrictionProofs() []proof {
	const auth = "\nsmtpd_sasl_auth_enable = yes"
	elsewhere := rcpt("a@good.test", "x@elsewhere.test")
	ours := rcpt("a@good.test", "USER")
	data := session("EHLO client.test", "MAIL FROM:<a@good.test>", "RCPT TO:<USER>", "DATA", "Subject: x", "", "x", ".")
	return []proof{
		{"smtpd_client_restrictions", unset, "reject", "", ours, "\n250 2.1.5", "Client host rejected: Access denied"},
		{"smtpd_helo_restrictions", unset, "reject", "", ours, "\n250 2.1.5", "Helo command rejected: Access denied"},
		{"smtpd_sender_restrictions", unset, "reject", "", ours, "\n250 2.1.5", "Sender address rejected: Access denied"},
		{"smtpd_recipient_restrictions", unset, "reject", "", ours, "\n250 2.1.5", "Recipient address rejected: Access denied"},
		{"smtpd_relay_restrictions", "reject_unauth_destination", "reject", "", ours, "\n250 2.1.5", "Recipient address rejected: Access denied"},
		{"smtpd_data_restrictions", unset, "reject", "", data, "\n354 ", "Data command rejected: Access denied"},
		{"smtpd_end_of_data_restrictions", unset, "reject", "", data, "\n250 2.0.0", "End-of-data rejected: Access denied"},
		{"smtpd_etrn_restrictions", unset, "reject", "", session("EHLO client.test", "ETRN good.test"), "", "Etrn command rejected: Access denied"},
		{"smtpd_restriction_classes", unset, "strict", "strict = reject\nsmtpd_sender_restrictions = check_sender_access inline:{good.test=strict}", ours, "\n451 4.3.5", "\n554 5.7.1"},
		{"smtpd_delay_reject", "yes", "no", "smtpd_sender_restrictions = reject", session("EHLO client.test", "MAIL FROM:<a@good.test>"), "\n250 2.1.0", "\n554 5.7.1"},
		{"smtpd_relay_before_recipient_restrictions", "yes", "no", "smtpd_recipient_restrictions = reject", elsewhere, "Relay access denied", "Access denied\n"},
		{"smtpd_reject_unlisted_recipient", "yes", "no", "", rcpt("", "nobody@example.test"), "\n550 5.1.1", "\n250 2.1.5"},
		{"smtpd_reject_unlisted_sender", "no", "yes", "", rcpt("nobody@example.test", "USER"), "\n250 2.1.5", "\n550 5.1.0"},
		{"smtpd_sender_login_maps", unset, "inline:{a@good.test=somebody}", "smtpd_sender_restrictions = reject_sender_login_mismatch" + auth, ours, "\n250 2.1.5", "\n553 5.7.1"},
		{"smtpd_null_access_lookup_key", unset, "nobody", "smtpd_sender_restrictions = check_sender_access inline:{nobody=REJECT}", rcpt("", "USER"), "\n250 2.1.5", "\n554 5.7.1"},
		{"parent_domain_matches_subdomains", unset, "smtpd_access_maps", "relay_domains = relay.test", rcpt("", "x@sub.relay.test"), "\n250 2.1.5", "\n554 5.7.1"},
		{"permit_mx_backup_networks", unset, "198.51.100.0/24", "smtpd_relay_restrictions = permit_mx_backup, reject_unauth_destination", rcpt("", "x@backup.test"), "\n250 2.1.5", "\n554 5.7.1"},
		{"allow_untrusted_routing", "no", "yes", "relay_domains = relay.test", rcpt("", "x@elsewhere.test@relay.test"), "\n554 5.7.1", "\n250 2.1.5"},
		{"mynetworks", "127.0.0.1/32", "127.0.0.0/8", "", elsewhere, "\n554 5.7.1", "\n250 2.1.5"},
		{"smtpd_peername_lookup", "yes", "no", "", withLog(ours), "connect from client.test[127.0.0.2]", "connect from unknown[127.0.0.2]"},
		{"smtpd_client_port_logging", "no", "yes", "", withLog(ours), "connect from unknown[127.0.0.2]\n", "connect from unknown[127.0.0.2]:"},
		{"smtpd_authorized_xclient_hosts", unset, stranger, "", session("EHLO client.test", "XCLIENT NAME=other.test"), "\n550 5.7.0", "\n250-XCLIENT NAME"},
		{"smtpd_authorized_xforward_hosts", unset, stranger, "", session("EHLO client.test", "XFORWARD NAME=other.test"), "\n550 5.7.0", "\n250-XFORWARD NAME"},
		{"syslog_name", "SIDE-one", "SIDE-two", "", withLog(ours), "a-one/smtpd", "b-two/smtpd"},
		{"multi_instance_name", unset, "postfix-second", "syslog_name = ${multi_instance_name?{$multi_instance_name}:{postfix}}-SIDE", withLog(ours), "postfix-proof", "postfix-second-proof"},
	}
}
