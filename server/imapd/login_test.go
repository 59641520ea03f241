package imapd

import (
	"testing"

	"postilion/server/login"
	"postilion/server/login/logintest"
)

func TestLogin(t *testing.T) {
	logintest.Run(t, logintest.Protocol{
		Serve: func(t *testing.T, options login.Options) *login.Gate {
			r := newRig(t)
			r.opt.Options = options
			return New(r.opt).Gate
		},
		Greeting: "* OK [CAPABILITY ", Refusal: "* BYE %s\r\n",
		Login: []string{"l LOGIN %s pw"}, Welcome: "l OK ", Surplus: "l NO [LIMIT] ",
		Noop: "n NOOP", Done: "n OK ",
	})
}
