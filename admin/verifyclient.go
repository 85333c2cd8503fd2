package admin

import (
	"context"
	"net/url"
)

// Verifications says how agencies' mailboxes stand; agency: only this one's.
func (c *Client) Verifications(ctx context.Context, agency string) (Verifications, error) {
	return get[Verifications](ctx, c, verifyPath, given(url.Values{"agency": {agency}}))
}

// BeginVerify has mailboxes compared by the node.
func (c *Client) BeginVerify(ctx context.Context, v NewVerification) (VerificationBegun, error) {
	return post[VerificationBegun](ctx, c, verifyPath, v)
}

// StopVerify stops a comparison that runs on the node.
func (c *Client) StopVerify(ctx context.Context, agency, reason string) (Verifications, error) {
	return post[Verifications](ctx, c, verifyPath+"/stop", map[string]string{"agency": agency, "reason": reason})
}

// Findings returns what comparing mailboxes found. Agency, state and kind may be empty.
func (c *Client) Findings(ctx context.Context, agency, state, kind string) (Findings, error) {
	return get[Findings](ctx, c, verifyPath+"/findings", given(url.Values{"agency": {agency}, "state": {state}, "kind": {kind}}))
}

// MarkFindings says that findings are put right, or as they should be.
func (c *Client) MarkFindings(ctx context.Context, m FindingMark) (Findings, error) {
	return post[Findings](ctx, c, verifyPath+"/findings/mark", m)
}

// FindingMessages returns the messages that a finding is about.
func (c *Client) FindingMessages(ctx context.Context, id string) (FindingMessages, error) {
	return get[FindingMessages](ctx, c, verifyPath+"/findings/"+url.PathEscape(id)+"/messages", nil)
}

// Comparisons returns the numbers of each mailbox of an agency; differ: only of those of which
// something differs. address may be empty.
func (c *Client) Comparisons(ctx context.Context, agency string, differ bool, address string) (MailboxComparisons, error) {
	q := given(url.Values{"agency": {agency}, "address": {address}})
	if differ {
		q.Set("differ", "true")
	}
	return get[MailboxComparisons](ctx, c, verifyPath+"/mailboxes", q)
}

// given leaves out what is empty.
func given(q url.Values) url.Values {
	for key, values := range q {
		if len(values) == 0 || values[0] == "" {
			q.Del(key)
		}
	}
	return q
}
