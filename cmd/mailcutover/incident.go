package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/notice/incident"
)

// newIncidentCommand returns the commands for a report to the data protection authority.
func newIncidentCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "incident", Short: "What is known for a report to the data protection authority"}
	cmd.AddCommand(newIncidentExport(c))
	return cmd
}

func newIncidentExport(c *connection) *cobra.Command {
	var agency, out, reason string
	var since, until moment
	cmd := c.command(&cobra.Command{
		Use: "export --agency AGENCY --since TIME --out PATH", Short: "All that is known of an agency's mail in a span of time, as a directory or a zip file", Args: cobra.NoArgs,
		Long: "Writes what the law wants to be told within 72 hours (GDPR article 33), as far as it is known: the\n" +
			"time line from the audit logs of all nodes, operations, lists and alarms; each delivery with where it\n" +
			"went by which mapping, from the ledgers of all nodes; whose mailboxes and which correspondents were\n" +
			"concerned; what came back; what lies in a wrong mailbox. With a summary in English and German that\n" +
			"prints, tables in CSV and JSON, and a manifest with SHA-256. Neither subjects nor content are in it.\n\n" +
			"PATH must not exist; a name that ends with .zip makes a zip file. What is missing, such as a node that\n" +
			"didn't answer, is said, in the summary too. It names people: it takes a token of the role admin, and\n" +
			"the reason stands in the audit log of the node that was asked.",
		Example: "  mailcutover incident export --agency health --since '2026-03-01 08:30' --until '2026-03-01 18:00' --out health.zip --reason 'DPO, case 17'",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		if until.IsZero() {
			until.Time = time.Now()
		}
		if !since.Before(until.Time) {
			return &usageError{err: fmt.Errorf("--since %s is not before --until %s", &since, &until), command: cmd.CommandPath()}
		}
		m, err := exportIncident(cmd.Context(), client, agency, since.Time, until.Time, reason, out)
		if err != nil {
			return err
		}
		for _, text := range m.Missing {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", oneLine(text))
		}
		return c.show(cmd, m, func(w io.Writer) {
			fmt.Fprintf(w, "%s of the ledgers, %s in %s\n", firstOf(count(m.Deliveries.Rows, "row", "rows"), "no rows"), count(len(m.Files)+1, "file", "files"), printable(out))
			fmt.Fprintf(w, "read summary.en.html or summary.de.html first; %s says what each file is\n", incident.ManifestName)
			if !m.Complete {
				fmt.Fprintln(w, "NOT COMPLETE: see the warnings, which are in the summaries too")
			}
			fmt.Fprintln(w, "undo: it names people; remove it when nobody needs it any more")
		})
	})
	cmd.Flags().StringVar(&agency, "agency", "", "whose (required)")
	cmd.Flags().Var(&since, "since", "from then on: a time, or how long ago, such as 90m or 3d (required)")
	cmd.Flags().Var(&until, "until", "and before then (default: now)")
	cmd.Flags().StringVar(&out, "out", "", "directory, or FILE.zip, to write; it must not exist (required)")
	require(cmd, "agency", "since", "out")
	addReason(cmd, &reason)
	return cmd
}

// exportIncident asks the node for all that an export has, and writes it.
func exportIncident(ctx context.Context, client *admin.Client, agency string, since, until time.Time, reason, out string) (m incident.Manifest, err error) {
	// What is refused is refused before anything is written down there or here.
	of, err := client.Agency(ctx, agency)
	if err != nil {
		return m, err
	}
	w, err := incident.New(out)
	if err != nil {
		return m, err
	}
	fail := func(err error) (incident.Manifest, error) {
		_ = w.Discard() // the error before says more
		return m, err
	}
	deliveries, err := client.ExportLedger(ctx, admin.LedgerExport{Agency: agency, From: since, To: until, Reason: reason}, w.Delivery)
	if err != nil {
		return fail(err)
	}
	in := incident.Material{Agency: of, From: since, To: until, Made: time.Now(), By: deliveries.By, Reason: reason, Node: deliveries.Node}
	if in.Records, err = client.Incident(ctx, agency, since, until, reason); err != nil {
		return fail(err)
	}
	parts := []struct {
		what string
		ask  func() error
	}{
		{"operations", func() error {
			all, err := client.Operations(ctx, agency)
			in.Operations = all.Operations
			if all.Unreadable != "" {
				in.Missing = append(in.Missing, "operations that can't be read: "+all.Unreadable)
			}
			return err
		}},
		{"recalls", func() (err error) { in.Recalls, err = client.Recalls(ctx, agency); return err }},
		{"findings", func() error {
			all, err := client.Findings(ctx, agency, "", "")
			in.Findings = all.Findings
			return err
		}},
		{"comparisons", func() error {
			all, err := client.Verifications(ctx, agency)
			if len(all.Agencies) == 1 {
				in.Verify = &all.Agencies[0]
			}
			return err
		}},
		{"nodes", func() error {
			all, err := client.Nodes(ctx)
			in.Nodes = all.Nodes
			return err
		}},
		{"lists", func() (err error) { in.Lists, err = client.Lists(ctx, agency); return err }},
		{"the program's version", func() error {
			v, err := client.Version(ctx)
			in.Program = v.Version
			return err
		}},
	}
	for _, part := range parts {
		if err := part.ask(); err != nil {
			if p, ok := errors.AsType[*admin.Problem](err); ok && p.Status == http.StatusServiceUnavailable {
				in.Missing = append(in.Missing, fmt.Sprintf("%s: %s", part.what, p.Detail))
				continue // such as comparisons, where the node makes none
			}
			return fail(err)
		}
	}
	return w.Finish(&in, &deliveries)
}
