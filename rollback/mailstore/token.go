package mailstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// TokenFile is a [Token] in a file that somebody else keeps fresh: its first line. It is read
// each time.
type TokenFile string

// maxToken bounds a token.
const maxToken = 64 << 10

// Token implements [Token].
func (f TokenFile) Token(context.Context, string) (string, error) {
	file, err := os.Open(string(f))
	if err != nil {
		return "", err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxToken))
	if err != nil {
		return "", err
	}
	token, _, _ := strings.Cut(string(b), "\n")
	if token = strings.TrimSpace(token); token == "" {
		return "", fmt.Errorf("no token in %s", string(f))
	}
	return token, nil
}

// ClientCredentials are those of our client at an OAuth server (RFC 6749 section 4.4).
type ClientCredentials struct {
	URL, ClientID, Secret, Scope string
	Client                       *http.Client // nil: one with a time limit of 30 s
}

// tokenLimit is how long the server may take.
const tokenLimit = 30 * time.Second

// early is how long before its end a token isn't used any more.
const early = time.Minute

// Credentials is a [Token] that is asked for, and kept as long as it lasts. It is safe for
// concurrent use: who comes while one asks waits for that answer.
type Credentials struct {
	c ClientCredentials

	mu    sync.Mutex
	token string
	until time.Time
}

// NewClientCredentials returns a source of tokens. Nothing is asked yet.
func NewClientCredentials(c ClientCredentials) *Credentials {
	if c.Client == nil {
		c.Client = &http.Client{Timeout: tokenLimit}
	}
	return &Credentials{c: c}
}

// Token implements [Token].
func (c *Credentials) Token(ctx context.Context, refused string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != "" && c.token != refused && time.Now().Before(c.until) {
		return c.token, nil
	}
	token, life, err := c.ask(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.c.URL, err)
	}
	c.token, c.until = token, time.Now().Add(life-early)
	return token, nil
}

// ask asks the server. What it says when it refuses may hold secrets, and isn't passed on.
func (c *Credentials) ask(ctx context.Context) (string, time.Duration, error) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.c.ClientID}, "client_secret": {c.c.Secret}}
	if c.c.Scope != "" {
		form.Set("scope", c.c.Scope)
	}
	ctx, cancel := context.WithTimeout(ctx, tokenLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.c.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := c.c.Client.Do(request)
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("answered %s", response.Status)
	}
	var answer struct {
		Token   string `json:"access_token"`
		Expires int64  `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxToken)).Decode(&answer); err != nil {
		return "", 0, errors.New("answered what isn't JSON")
	}
	if answer.Token == "" {
		return "", 0, errors.New("answered without a token")
	}
	return answer.Token, time.Duration(answer.Expires) * time.Second, nil
}
