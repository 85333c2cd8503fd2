package admin

import (
	"bufio"
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
	"sync"
	"time"

	"github.com/google/uuid"

	"mailcutover/internal/alarm"
	"mailcutover/rollback/operation"
)

// ErrUnreachable is wrapped by the errors of a [Client] that got no answer it could
// read. A change may have happened all the same.
var ErrUnreachable = errors.New("node can't be reached")

const (
	callTimeout    = 30 * time.Second
	silenceTimeout = 15 * time.Second // of a stream; the node says something every second
	maxAnswerBytes = 64 << 20
)

// Client calls a node's API. Its errors are [*Problem] where the node answered, else
// they wrap [ErrUnreachable]. It is safe for concurrent use. Use [NewClient].
type Client struct {
	base  string
	token string
	http  *http.Client

	mu       sync.Mutex
	approval string
	lab      bool
}

// NewClient returns a client of the node at base, such as http://127.0.0.1:8025.
// transport nil is Go's own with its defaults. Redirections aren't followed: the token
// goes nowhere but to base.
func NewClient(base, token string, transport http.RoundTripper) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("API's address %s: want it such as http://127.0.0.1:8025", shown(base))
	}
	return &Client{
		base: strings.TrimSuffix(base, "/"), token: token,
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// shown is an address for an error: without what might be a password in it.
func shown(base string) string {
	switch {
	case strings.Contains(base, "@"):
		return "with a user in it"
	case strings.ContainsAny(base, "?#"):
		return "with a query or fragment in it"
	}
	return strconv.Quote(base)
}

// Approval returns what the node said last about approvals, and whether it is a lab;
// empty before the first answer.
func (c *Client) Approval() (approval string, lab bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.approval, c.lab
}

// Agencies returns all agencies.
func (c *Client) Agencies(ctx context.Context) ([]Agency, error) {
	out, err := get[Agencies](ctx, c, "/v1/agencies", nil)
	return out.Agencies, err
}

// Agency returns one.
func (c *Client) Agency(ctx context.Context, id string) (Agency, error) {
	return get[Agency](ctx, c, "/v1/agencies/"+url.PathEscape(id), nil)
}

// AddAgency adds one.
func (c *Client) AddAgency(ctx context.Context, a NewAgency) (Agency, error) {
	return post[Agency](ctx, c, "/v1/agencies", a)
}

// Arm makes an agency ready to be switched. epoch is that of the record the caller has seen.
func (c *Client) Arm(ctx context.Context, id, epoch, reason string) (Agency, error) {
	return post[Agency](ctx, c, "/v1/agencies/"+url.PathEscape(id)+"/arm", reasoned{Reason: reason, ExpectedEpoch: epoch})
}

// Start begins a cutover or a rollback, and returns when the agency is closed for it.
func (c *Client) Start(ctx context.Context, kind operation.Kind, id, epoch, reason string) (Operation, error) {
	return post[Operation](ctx, c, "/v1/agencies/"+url.PathEscape(id)+"/"+string(kind), reasoned{Reason: reason, ExpectedEpoch: epoch})
}

// Switch starts a cutover or a rollback, on one person's word.
func (c *Client) Switch(ctx context.Context, kind operation.Kind, id string, n NewSwitch) (Operation, error) {
	return post[Operation](ctx, c, "/v1/agencies/"+url.PathEscape(id)+"/"+string(kind), n)
}

// Operations returns those of the node's journal; agency, unless empty, selects.
func (c *Client) Operations(ctx context.Context, agency string) (Operations, error) {
	q := url.Values{}
	if agency != "" {
		q.Set("agency", agency)
	}
	return get[Operations](ctx, c, "/v1/operations", q)
}

// Operation returns one.
func (c *Client) Operation(ctx context.Context, id string) (Operation, error) {
	return get[Operation](ctx, c, "/v1/operations/"+url.PathEscape(id), nil)
}

// Watch calls show with an operation's progress until it is no longer under way on the
// node, and returns it as it was last. A connection that breaks ends in an error.
func (c *Client) Watch(ctx context.Context, id string, show func(Operation)) (last Operation, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(silenceTimeout, func() { cancel(fmt.Errorf("nothing heard for %s", silenceTimeout)) })
	defer silence.Stop()
	res, err := c.send(ctx, http.MethodGet, "/v1/operations/"+url.PathEscape(id)+"/events", nil, "", nil)
	if err != nil {
		return last, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		silence.Reset(silenceTimeout)
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var op Operation
		if err := json.Unmarshal([]byte(data), &op); err != nil {
			return last, fmt.Errorf("%w: progress of operation %s: %w", ErrUnreachable, id, err)
		}
		last = op
		show(op)
	}
	switch {
	case ctx.Err() != nil:
		return last, fmt.Errorf("%w: watch operation %s: %w", ErrUnreachable, id, context.Cause(ctx))
	case lines.Err() != nil:
		return last, fmt.Errorf("%w: watch operation %s: %w", ErrUnreachable, id, lines.Err())
	case last.ID == "" || last.Running:
		return last, fmt.Errorf("%w: watch operation %s: the stream ended early", ErrUnreachable, id)
	}
	return last, nil
}

// Import stores a list of mailboxes, or with dryRun only checks it.
func (c *Client) Import(ctx context.Context, list io.Reader, reason string, dryRun bool) (Imported, error) {
	ctx, cancel := context.WithTimeout(ctx, listReadTimeout+listTimeout)
	defer cancel()
	q := url.Values{"reason": {reason}}
	if dryRun {
		q.Set("dry_run", "true")
	}
	return decode[Imported](c.send(ctx, http.MethodPost, importPath, q, "text/csv", list))
}

// Remap proposes to bring a list into force, whatever answers that changes, or with dryRun
// only says which.
func (c *Client) Remap(ctx context.Context, list io.Reader, reason string, dryRun bool) (Remapping, error) {
	ctx, cancel := context.WithTimeout(ctx, listReadTimeout+listTimeout)
	defer cancel()
	q := url.Values{"reason": {reason}}
	if dryRun {
		q.Set("dry_run", "true")
	}
	return decode[Remapping](c.send(ctx, http.MethodPost, remapPath, q, "text/csv", list))
}

// Release takes a name that two claim from one of them.
func (c *Client) Release(ctx context.Context, r Release) (Released, error) {
	return post[Released](ctx, c, releasePath, r)
}

// Mailboxes returns a page of an agency's mailboxes, those after a directory id; after
// empty is the first page.
func (c *Client) Mailboxes(ctx context.Context, agency, after string) (Mailboxes, error) {
	q := url.Values{"agency": {agency}, "limit": {strconv.Itoa(maxPage)}}
	if after != "" {
		q.Set("after", after)
	}
	return get[Mailboxes](ctx, c, "/v1/mailboxes", q)
}

// Mailbox returns the mailbox that has a directory id, an address or a login.
func (c *Client) Mailbox(ctx context.Context, name string) (Mailbox, error) {
	return get[Mailbox](ctx, c, "/v1/mailboxes/"+url.PathEscape(name), nil)
}

// Route explains what would be done with mail for an address or with a login; as is
// "address" or "login".
func (c *Client) Route(ctx context.Context, as, name string) (Route, error) {
	return get[Route](ctx, c, "/v1/route", url.Values{as: {name}})
}

// Domains returns the served domains.
func (c *Client) Domains(ctx context.Context) ([]Domain, error) {
	out, err := get[Domains](ctx, c, "/v1/domains", nil)
	return out.Domains, err
}

// Table says where the node's copy of the table stands.
func (c *Client) Table(ctx context.Context) (Table, error) {
	return get[Table](ctx, c, "/v1/table", nil)
}

// Platforms returns the platforms as the node sees them.
func (c *Client) Platforms(ctx context.Context) ([]Platform, error) {
	out, err := get[Platforms](ctx, c, "/v1/platforms", nil)
	return out.Platforms, err
}

// Config returns the node's settings as YAML; changed: only those that differ from the
// defaults.
func (c *Client) Config(ctx context.Context, changed bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, "/v1/config", url.Values{"changed": {strconv.FormatBool(changed)}}, "", nil)
	if err != nil {
		return "", err
	}
	b, err := read(res)
	return string(b), err
}

// Reload lets the node read its configuration again.
func (c *Client) Reload(ctx context.Context, reason string) (Reloaded, error) {
	return post[Reloaded](ctx, c, "/v1/config/reload", reasoned{Reason: reason})
}

// Alarms returns what a human has to see.
func (c *Client) Alarms(ctx context.Context) ([]alarm.Alarm, error) {
	out, err := get[AlarmList](ctx, c, "/v1/alarms", nil)
	return out.Alarms, err
}

// ClearAlarm marks an alarm as done.
func (c *Client) ClearAlarm(ctx context.Context, key, reason string) error {
	_, err := post[struct{}](ctx, c, "/v1/alarms/"+url.PathEscape(key)+"/clear", reasoned{Reason: reason})
	return err
}

// Version returns that of the node's program.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return get[Version](ctx, c, "/v1/version", nil)
}

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return decode[T](c.send(ctx, http.MethodGet, path, q, "", nil))
}

func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	return postFor[T](ctx, c, path, body, callTimeout)
}

// postFor is post of a call that may take that long.
func postFor[T any](ctx context.Context, c *Client, path string, body any, limit time.Duration) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b, err := json.Marshal(body)
	if err != nil {
		var none T
		return none, fmt.Errorf("encode the call %s: %w", path, err)
	}
	return decode[T](c.send(ctx, http.MethodPost, path, nil, "application/json", bytes.NewReader(b)))
}

type onceKey struct{}

// Once returns a context with which a call that changes something is made under this
// Idempotency-Key, of 1 to 200 bytes: repeated, it acts once. One context is for one call.
func Once(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, onceKey{}, key)
}

// send sends one call; an answer that isn't a success is a Problem.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, contentType string, body io.Reader) (*http.Response, error) {
	target := c.base + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", contentType)
		key, ok := ctx.Value(onceKey{}).(string)
		if !ok {
			key = uuid.NewString()
		}
		req.Header.Set(headerIdempotency, key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the address, which stands before it
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, c.base, err)
	}
	c.mu.Lock()
	c.approval, c.lab = res.Header.Get(headerApproval), res.Header.Get(headerLab) == "true"
	c.mu.Unlock()
	if res.StatusCode >= 200 && res.StatusCode <= 299 {
		return res, nil
	}
	b, err := read(res)
	if err != nil {
		return nil, err
	}
	p := &Problem{}
	if res.Header.Get("Content-Type") != problemType || json.Unmarshal(b, p) != nil || p.Status != res.StatusCode {
		return nil, fmt.Errorf("%w: %s answers %s, which is not mailcutover's API", ErrUnreachable, c.base, res.Status)
	}
	return nil, p
}

func read(res *http.Response) ([]byte, error) {
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("%w: read the answer: %w", ErrUnreachable, err)
	}
	return b, nil
}

func decode[T any](res *http.Response, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	b, err := read(res)
	if err == nil && res.StatusCode != http.StatusNoContent {
		if err = json.Unmarshal(b, &v); err != nil {
			err = fmt.Errorf("%w: the answer is not mailcutover's: %w", ErrUnreachable, err)
		}
	}
	return v, err
}
