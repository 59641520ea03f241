// Package smtp speaks SMTP, submission and LMTP without a socket: grammar, state and limits of both ends. Bytes go in; replies, events and
// message octets come out. There is no I/O here, no goroutine, no clock, and no decision about who may send what to whom: where one is due
// the engine stops with an event and goes on when it is told the answer.
//
// The server half (Server) follows RFC 5321, 1870, 2033 (LMTP), 2034, 2920, 3030, 3207, 3461, 4954, 6152, 6531 and, where the documents leave
// room or the world does otherwise, Postfix 3.7's smtpd(8), whose replies it gives; as an LMTP server it answers like Dovecot's. The client half
// (Client) is a pipelined transaction for one message at a time.
package smtp
