package oauth2

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxAnswer is the limit of an endpoint's answer in octets.
const maxAnswer = 256 << 10

// tokeninfo asks the token information endpoint, to whose URL the token is appended.
func (c *Checker) tokeninfo(ctx context.Context, token string) (claims, error) {
	return c.get(ctx, c.settings.tokeninfoURL+url.QueryEscape(token), "")
}

// introspect asks the introspection endpoint in the way of introspection_mode.
func (c *Checker) introspect(ctx context.Context, token string) (claims, error) {
	s := &c.settings
	switch s.introspectionMode {
	case "get":
		return c.get(ctx, s.introspectionURL+url.QueryEscape(token), "")
	case "post":
		form := "token=" + url.QueryEscape(token)
		if s.clientID != "" {
			form += "&client_id=" + url.QueryEscape(s.clientID)
		}
		if s.clientSecret != "" {
			form += "&client_secret=" + url.QueryEscape(s.clientSecret)
		}
		return c.post(ctx, s.introspectionURL, form)
	}
	return c.get(ctx, s.introspectionURL, token)
}

// grant obtains a token for a password (RFC 6749 section 4.3).
func (c *Checker) grant(ctx context.Context, user, password string) (string, error) {
	s := &c.settings
	form := url.Values{"grant_type": {"password"}, "username": {user}, "password": {password}}
	for name, value := range map[string]string{"client_id": s.clientID, "client_secret": s.clientSecret, "scope": s.scope} {
		if value != "" {
			form.Set(name, value)
		}
	}
	answer, err := c.post(ctx, s.grantURL, form.Encode())
	if err != nil {
		return "", fmt.Errorf("password grant failed: %w", err)
	}
	token := answer["access_token"]
	if token == "" {
		return "", fmt.Errorf("%w: password grant: no access_token returned", ErrInvalid)
	}
	return token, nil
}

func (c *Checker) get(ctx context.Context, address, bearer string) (claims, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, hidden(err)
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	return c.answer(request)
}

func (c *Checker) post(ctx context.Context, address, form string) (claims, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form))
	if err != nil {
		return nil, hidden(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.answer(request)
}

// hidden takes the URL, which may hold the token, out of an error of net/http.
func hidden(err error) error {
	var with *url.Error
	if errors.As(err, &with) {
		return with.Err
	}
	return err
}

// answer sends a request and reads the JSON object that answers it. An endpoint that refuses the token answers with 400, 401 or 403.
func (c *Checker) answer(request *http.Request) (claims, error) {
	request.Header.Set("Accept", "application/json")
	response, err := c.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", request.URL.Host, hidden(err))
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", request.URL.Host, hidden(err))
	}
	if len(text) > maxAnswer {
		return nil, fmt.Errorf("%s: the answer is longer than %d octets", request.URL.Host, maxAnswer)
	}
	switch response.StatusCode {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("%w: %s answered %s", ErrInvalid, request.URL.Host, response.Status)
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s answered %s", request.URL.Host, response.Status)
	}
	known, err := parseClaims(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", request.URL.Host, err)
	}
	if _, has := known["error"]; has {
		return nil, fmt.Errorf("%w: %s: %s", ErrInvalid, known["error"], known["error_description"])
	}
	return known, nil
}

// parseClaims reads the members of a JSON object as text: numbers as they are written, lists of texts with blanks between. Other values are
// left out.
func parseClaims(text []byte) (claims, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var members map[string]any
	if err := decoder.Decode(&members); err != nil {
		return nil, fmt.Errorf("no JSON object: %w", err)
	}
	return flatten(members), nil
}

func flatten(members map[string]any) claims {
	known := claims{}
	for name, value := range members {
		if text, ok := claimText(value); ok {
			known[name] = text
		}
	}
	return known
}

func claimText(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, !strings.ContainsAny(v, "\x00\r\n")
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	case []any:
		var words []string
		for _, one := range v {
			if text, ok := one.(string); ok && !strings.ContainsAny(text, "\x00\r\n") {
				words = append(words, text)
			}
		}
		return strings.Join(words, " "), true
	}
	return "", false
}

// expiry is when the token ends, by exp or expires_in.
func (k claims) expiry(now time.Time) (time.Time, bool) {
	if n, err := strconv.ParseInt(k["exp"], 10, 64); err == nil {
		return time.Unix(n, 0), true
	}
	if n, err := strconv.ParseInt(k["expires_in"], 10, 32); err == nil {
		return now.Add(time.Duration(n) * time.Second), true
	}
	return time.Time{}, false
}
