// Package service is a running system assembled from configuration: it reads the Postfix and the Dovecot half, builds stores, accounts, policy, routes
// and servers from them, opens the sockets, and starts, reloads and stops the whole in order.
//
// It is the only package that knows all others, and it decides nothing about mail itself. Where Postfix's and Dovecot's configurations meet
// (an LMTP socket, an auth socket) it joins the two in process.
package service
