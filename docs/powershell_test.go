package docs_test

import (
	"regexp"
	"strings"
	"testing"
)

var (
	powershellBlock = regexp.MustCompile("(?s)```powershell\n(.*?)```")
	scriptCall      = regexp.MustCompile(`(?m)^\.\\(\S+\.ps1)(.*)$`)
	scriptParameter = regexp.MustCompile(` -([A-Za-z]+)`)
)

// common are the parameters that PowerShell gives every script with SupportsShouldProcess.
var common = map[string]bool{"WhatIf": true, "Confirm": true}

// TestPowerShellIsOurs holds calls of scripts, which nothing here can run, to the scripts in
// configs/exchange and their parameters.
func TestPowerShellIsOurs(t *testing.T) {
	calls := 0
	for name, text := range documents(t) {
		for _, block := range powershellBlock.FindAllStringSubmatch(text, -1) {
			for _, call := range scriptCall.FindAllStringSubmatch(block[1], -1) {
				calls++
				script := "configs/exchange/" + call[1]
				if !exists(script) {
					t.Errorf("%s calls %s, which isn't there", name, script)
					continue
				}
				head, _, _ := strings.Cut(read(t, script), "\n)")
				for _, p := range scriptParameter.FindAllStringSubmatch(call[2], -1) {
					if !common[p[1]] && !regexp.MustCompile(`\$`+p[1]+`\b`).MatchString(head) {
						t.Errorf("%s calls %s with -%s, which it doesn't take", name, script, p[1])
					}
				}
			}
		}
	}
	if calls == 0 {
		t.Error("no document calls a script: what are they for?")
	}
}
