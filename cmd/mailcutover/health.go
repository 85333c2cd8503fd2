package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// healthTimeout bounds the question.
const healthTimeout = 5 * time.Second

// newHealthCommand asks without a token, for supervisors.
func newHealthCommand(c *connection) *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use: "health", Short: "Whether the node answers; for supervisors, without a token", Args: cobra.NoArgs,
		Long:    "Whether the node's process answers (/healthz), or with --ready whether it takes mail\n(/readyz). Restart a node that doesn't answer; never one that isn't ready: it may hold mail\nand wait for its table.",
		Example: "  mailcutover health\n  mailcutover health --ready --api https://mx1.example.org:8025",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			transport, err := c.transport()
			if err != nil {
				return err
			}
			if _, err := admin.NewClient(c.base(), "", transport); err != nil {
				return &usageError{err: err, command: cmd.CommandPath()}
			}
			client := &http.Client{Transport: transport, Timeout: healthTimeout}
			defer client.CloseIdleConnections()
			req, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, c.base()+path, nil)
			if err != nil {
				return &usageError{err: fmt.Errorf("--api: %w", err), command: cmd.CommandPath()}
			}
			res, err := client.Do(req)
			if err != nil {
				return fmt.Errorf("%w: %w", admin.ErrUnreachable, err)
			}
			defer res.Body.Close()
			b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
			if err != nil {
				return fmt.Errorf("%w: %w", admin.ErrUnreachable, err)
			}
			if res.StatusCode != http.StatusOK {
				var r admin.Readiness
				if json.Unmarshal(b, &r) != nil || r.Reason == "" {
					r.Reason = res.Status
				}
				return withHint(fmt.Errorf("the node isn't ready: %s", r.Reason), "mailcutover table show; mailcutover alarm list")
			}
			return c.show(cmd, json.RawMessage(b), func(w io.Writer) { fmt.Fprintln(w, "ok") })
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "whether it takes mail")
	return cmd
}
