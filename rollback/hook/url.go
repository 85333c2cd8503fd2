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
	client := h.Client
	if client == nil {
		client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	resp, err := client.Do(req)
	if err != nil {
		var inURL interface{ Unwrap() error } // the library's error has the URL in it
		if errors.As(err, &inURL) {
			err = inURL.Unwrap()
		}
		return nil, "", fmt.Errorf("post to %s: %w", req.URL.Host, err)
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
