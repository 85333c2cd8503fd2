package admin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/pprof"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
)

const goroutinesPath = "/v1/support/goroutines"

func (s *Server) registerSupport(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "show-goroutines", Method: http.MethodGet, Path: goroutinesPath, Tags: []string{"node"},
		Summary:     "What the node's goroutines are at",
		Description: "For the support bundle: stacks by functions and lines, without arguments.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}},
		}}},
	}, func(context.Context, *struct{}) (*struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}, error) {
		var out bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&out, 1); err != nil { // 1: counted, no arguments
			return nil, fmt.Errorf("list goroutines: %w", err)
		}
		return &struct {
			ContentType string `header:"Content-Type"`
			Body        []byte
		}{auditType, out.Bytes()}, nil
	})
}

// SupportPart is a part of what a node says of itself for a support bundle.
type SupportPart struct {
	Name    string // of a file
	Content []byte
	Err     error // why it couldn't be had; Content is what came all the same
}

// Support calls each with what the node says of itself: versions, settings (their secrets are
// references), nodes, table, platforms, agencies, operations, spool, alarms, metrics and
// goroutines, and whether its audit log is whole. There are no secrets and no content of messages
// in it, but addresses may be. What the token may not see is a part with an error.
func (c *Client) Support(ctx context.Context, each func(SupportPart)) {
	for _, part := range []struct {
		name, path string
		query      url.Values
	}{
		{"version.json", "/v1/version", nil},
		{"config.yaml", "/v1/config", nil},
		{"config-changed.yaml", "/v1/config", url.Values{"changed": {"true"}}},
		{"table.json", "/v1/table", nil},
		{"nodes.json", "/v1/nodes", nil},
		{"platforms.json", "/v1/platforms", nil},
		{"domains.json", "/v1/domains", nil},
		{"agencies.json", "/v1/agencies", nil},
		{"operations.json", "/v1/operations", nil},
		{"emergencies.json", "/v1/emergencies", nil},
		{"freezes.json", "/v1/freezes", nil},
		{"local-locks.json", "/v1/local-locks", nil},
		{"recalls.json", "/v1/recalls", nil},
		{"waves.json", "/v1/waves", nil},
		{"directory.json", "/v1/directory", nil},
		{"spool.json", spoolPath, nil},
		{"retained.json", "/v1/retained", nil},
		{"alarms.json", "/v1/alarms", nil},
		{"audit-heads.json", auditPath + "/heads", nil},
		{"metrics.txt", "/metrics", nil},
		{"goroutines.txt", goroutinesPath, nil},
	} {
		b, err := c.raw(ctx, part.path, part.query)
		each(SupportPart{part.name, b, err})
	}
	verified := "the audit log is whole\n"
	head, err := c.AuditExport(ctx, io.Discard)
	if err != nil {
		verified = fmt.Sprintf("the audit log is NOT whole, or can't be read: %s\n", err)
	}
	if head != (audit.Head{}) {
		verified += "head: " + head.String() + "\n"
	}
	each(SupportPart{"audit-verify.txt", []byte(verified), nil})
}

// raw returns an answer as it is.
func (c *Client) raw(ctx context.Context, path string, q url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, path, q, "", nil)
	if err != nil {
		return nil, err
	}
	return read(res)
}
