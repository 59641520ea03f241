package pop3d

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
		Greeting: "+OK ", Refusal: "-ERR [SYS/TEMP] %s\r\n",
		Login: []string{"USER %s", "PASS pw"}, Welcome: "+OK Logged in.", Surplus: "-ERR [IN-USE] ",
		Noop: "UTF8", Done: "",
	})
}
