package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// post sends the question to the URL.
func (h *Hook) post(ctx context.Context, question *bytes.Buffer) (answer []byte, output string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, question)
	if err != nil {
		return nil, "", errors.New("its URL can't be used (it isn't shown, it may hold a secret)")
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Accept", "application/x-ndjson")
	if h.Token != "" {
		req.Header.Set("Authorization", "Bearer "+h.Token)
	}
	resp, err := h.do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return answer, "", fmt.Errorf("read the answer of %s: %w", req.URL.Host, err)
	case len(answer) > maxAnswer:
		return nil, "", errTooMuch
	case resp.StatusCode != http.StatusOK:
		return nil, printable(answer), fmt.Errorf("%s answered %s", req.URL.Host, resp.Status)
	}
	return answer, "", nil
}

// do sends a request. Its errors don't have the URL in them, which may hold a secret.
func (h *Hook) do(req *http.Request) (*http.Response, error) {
	client := h.Client
	if client == nil {
		client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	resp, err := client.Do(req)
	if err != nil {
		var inURL interface{ Unwrap() error } // the library's error has it
		if errors.As(err, &inURL) {
			err = inURL.Unwrap()
		}
		return nil, fmt.Errorf("%s to %s: %w", req.Method, req.URL.Host, err)
	}
	return resp, nil
}

// Answers returns nil if the hook could be called from here, as far as that shows without
// calling it: what [Hook.Check] looks at, and of a URL that a server answers there, which is
// asked for its OPTIONS (RFC 9110 section 9.3.7), without token. Whatever it answers is as
// good. It ends with ctx.
func (h *Hook) Answers(ctx context.Context) error {
	if err := h.Check(); err != nil || h.URL == "" {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodOptions, h.URL, nil)
	if err != nil {
		return fmt.Errorf("hook %s: its URL can't be used (it isn't shown, it may hold a secret)", h.Kind)
	}
	resp, err := h.do(req)
	if err != nil {
		return fmt.Errorf("hook %s: %w", h.Kind, err)
	}
	return resp.Body.Close()
}
