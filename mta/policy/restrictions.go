package policy

import (
	"strings"

	"postilion/table"
)

// plainRestriction gives the check of a restriction without argument, nil for an unknown name. Names from before Postfix 2.3 stand beside
// the ones of today.
func plainRestriction(name string) func(*evaluation, subject) verdict {
	switch name {
	case "permit":
		return func(*evaluation, subject) verdict { return permit }
	case "reject":
		return rejectAll
	case "defer":
		return deferAll
	case "defer_if_permit":
		return deferIfPermit
	case "defer_if_reject":
		return deferIfReject
	case "permit_mynetworks":
		return permitMynetworks
	case "permit_inet_interfaces":
		return permitInetInterfaces
	case "permit_sasl_authenticated":
		return permitAuthenticated
	case "permit_tls_clientcerts":
		return permitCertificates
	case "permit_tls_all_clientcerts":
		return permitAllCertificates
	case "permit_auth_destination":
		return permitAuthDestination
	case "permit_mx_backup":
		return permitMXBackup
	case "permit_naked_ip_address":
		return permitNakedAddress
	case "reject_unauth_destination":
		return rejectUnauthDestination
	case "check_relay_domains":
		return checkRelayDomains
	case "defer_unauth_destination":
		return deferUnauthDestination
	case "reject_unauth_pipelining":
		return rejectPipelining
	case "reject_plaintext_session":
		return rejectPlaintext
	case "reject_multi_recipient_bounce":
		return rejectMultiBounce
	case "reject_unknown_client_hostname", "reject_unknown_client":
		return rejectUnknownClient
	case "reject_unknown_reverse_client_hostname":
		return rejectUnknownReverse
	case "reject_maps_rbl":
		return rejectOldLists
	}
	return addressRestriction(name)
}

// addressRestriction gives the checks of HELO names, senders and recipients.
func addressRestriction(name string) func(*evaluation, subject) verdict {
	switch name {
	case "reject_invalid_helo_hostname", "reject_invalid_hostname":
		return helo(rejectInvalidName)
	case "reject_non_fqdn_helo_hostname", "reject_non_fqdn_hostname":
		return helo(rejectNonFQDNName)
	case "reject_unknown_helo_hostname", "reject_unknown_hostname":
		return helo(rejectUnknownName)
	case "reject_non_fqdn_sender":
		return sender(rejectNonFQDNAddress)
	case "reject_non_fqdn_recipient":
		return recipient(rejectNonFQDNAddress)
	case "reject_unknown_sender_domain", "reject_unknown_address":
		return sender(rejectUnknownDomain)
	case "reject_unknown_recipient_domain":
		return recipient(rejectUnknownDomain)
	case "reject_unlisted_sender":
		return sender(rejectUnlistedSender)
	case "reject_unlisted_recipient", "check_recipient_maps":
		return recipient(rejectUnlistedRecipient)
	case "reject_unverified_sender":
		return sender(rejectUnverified)
	case "reject_unverified_recipient":
		return recipient(rejectUnverified)
	case "reject_sender_login_mismatch":
		return sender(rejectLoginMismatch)
	case "reject_authenticated_sender_login_mismatch":
		return sender(rejectAuthenticatedMismatch)
	case "reject_unauthenticated_sender_login_mismatch":
		return sender(rejectUnauthenticatedMismatch)
	case "reject_known_sender_login_mismatch":
		return sender(rejectKnownMismatch)
	}
	return nil
}

// helo, sender and recipient apply a check to what the client said, when it did.
func helo(check func(*evaluation, subject) verdict) func(*evaluation, subject) verdict {
	return func(e *evaluation, _ subject) verdict {
		if e.session.Helo == "" {
			return dunno
		}
		return check(e, subject{e.session.Helo, heloClass})
	}
}

func sender(check func(*evaluation, subject) verdict) func(*evaluation, subject) verdict {
	return func(e *evaluation, _ subject) verdict {
		if e.session.Sender == "" {
			return dunno
		}
		return check(e, subject{e.session.Sender, senderClass})
	}
}

func recipient(check func(*evaluation, subject) verdict) func(*evaluation, subject) verdict {
	return func(e *evaluation, _ subject) verdict {
		if e.session.Recipient == "" {
			return dunno
		}
		return check(e, subject{e.session.Recipient, recipientClass})
	}
}

// tableRestriction gives the check of a restriction whose argument is a table, nil for other names. What the check is about is always the
// thing that the name tells of, not what the list is about.
func tableRestriction(name string) func(*evaluation, table.Table, subject) verdict {
	switch name {
	case "check_client_access":
		return func(e *evaluation, t table.Table, _ subject) verdict {
			return e.accessHost(t, e.session.ClientName, subject{e.client(), clientClass})
		}
	case "check_reverse_client_hostname_access":
		return func(e *evaluation, t table.Table, _ subject) verdict {
			return e.forbidPermit(name, e.session.ReverseName, e.accessHost(t, e.session.ReverseName, subject{e.session.ReverseName, reverseClass}))
		}
	case "check_helo_access":
		return func(e *evaluation, t table.Table, _ subject) verdict {
			return e.accessName(t, e.session.Helo, heloClass)
		}
	case "check_etrn_access":
		return func(e *evaluation, t table.Table, _ subject) verdict {
			return e.accessName(t, e.session.ETRN, etrnClass)
		}
	case "check_sender_access":
		return checkSenderAccess
	case "check_recipient_access":
		return func(e *evaluation, t table.Table, _ subject) verdict {
			if e.session.Recipient == "" {
				return dunno
			}
			return e.accessMail(t, e.session.Recipient, subject{e.session.Recipient, recipientClass})
		}
	case "check_sasl_access":
		return func(e *evaluation, t table.Table, _ subject) verdict {
			if e.session.SASLUsername == "" {
				return dunno
			}
			return e.access(t, e.session.SASLUsername, false, subject{e.session.SASLUsername, loginClass}).verdict
		}
	case "check_ccert_access":
		return checkCertificateAccess
	}
	return serverRestriction(name)
}

// serverRestriction gives the checks of the mail exchangers, name servers and addresses of a name.
func serverRestriction(name string) func(*evaluation, table.Table, subject) verdict {
	parts := strings.Split(name, "_")
	if len(parts) < 4 || parts[0] != "check" || parts[len(parts)-1] != "access" {
		return nil
	}
	kind := parts[len(parts)-2]
	if kind != "mx" && kind != "ns" && kind != "a" {
		return nil
	}
	var of func(*Session) (name, reply, class string)
	switch strings.Join(parts[1:len(parts)-2], "_") {
	case "client":
		of = func(s *Session) (string, string, string) {
			return s.ClientName, s.ClientName + "[" + s.ClientAddress.Unmap().String() + "]", clientClass
		}
	case "reverse_client_hostname":
		of = func(s *Session) (string, string, string) { return s.ReverseName, s.ReverseName, reverseClass }
	case "helo":
		of = func(s *Session) (string, string, string) { return s.Helo, s.Helo, heloClass }
	case "sender":
		of = func(s *Session) (string, string, string) { return s.Sender, s.Sender, senderClass }
	case "recipient":
		of = func(s *Session) (string, string, string) { return s.Recipient, s.Recipient, recipientClass }
	default:
		return nil
	}
	return func(e *evaluation, t table.Table, _ subject) verdict {
		target, reply, class := of(e.session)
		if target == "" || (strings.EqualFold(target, "unknown") && (class == clientClass || class == reverseClass)) {
			return dunno
		}
		return e.forbidPermit(name, target, e.accessServers(t, kind, target, subject{reply, class}))
	}
}

// dnsListRestriction gives the check of a restriction whose argument is a DNS list, nil for other names.
func dnsListRestriction(name string) func(*evaluation, *zone) verdict {
	switch name {
	case "reject_rbl_client", "reject_rbl":
		return rejectListedClient
	case "permit_dnswl_client":
		return permitListedClient
	case "reject_rhsbl_client":
		return func(e *evaluation, z *zone) verdict {
			return e.rejectListedName(z, knownName(e.session.ClientName), clientClass)
		}
	case "permit_rhswl_client":
		return func(e *evaluation, z *zone) verdict { return e.permitListedName(z, knownName(e.session.ClientName)) }
	case "reject_rhsbl_reverse_client":
		return func(e *evaluation, z *zone) verdict {
			return e.rejectListedName(z, knownName(e.session.ReverseName), reverseClass)
		}
	case "reject_rhsbl_helo":
		return func(e *evaluation, z *zone) verdict { return e.rejectListedName(z, e.session.Helo, heloClass) }
	case "reject_rhsbl_sender":
		return func(e *evaluation, z *zone) verdict { return e.rejectListedName(z, e.session.Sender, senderClass) }
	case "reject_rhsbl_recipient":
		return func(e *evaluation, z *zone) verdict {
			return e.rejectListedName(z, e.session.Recipient, recipientClass)
		}
	}
	return nil
}

func knownName(name string) string {
	if strings.EqualFold(name, "unknown") {
		return ""
	}
	return name
}
