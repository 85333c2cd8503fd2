<#
.SYNOPSIS
Sets, shows or removes the forwards of moved mailboxes to their coexistence addresses.

.DESCRIPTION
For Exchange Server 2016 and 2019, in the Exchange Management Shell. NOT RUN AGAINST A REAL EXCHANGE: read it, adapt it, try
it with -WhatIf and then on a test mailbox. mailcutover does the same by itself with the hooks of configs/hooks/exchange.ps1;
this script is for looking at many mailboxes, for repairing, and for those who want no hooks.

The file is a generated list (CSV with semicolons: address;directory_id among its columns) or the JSON lines that a hook gets
(mailbox, address, forward_to). A mailbox is only touched if the directory id and the address of its row are both its own:
a list whose columns were mixed changes nothing. Each change is asked for, unless -Confirm:$false is given.

.EXAMPLE
.\forwards.ps1 -Action Show   -Path .\health-0001.csv -Pattern '{local}@moved.{domain}'
.\forwards.ps1 -Action Set    -Path .\health-0001.csv -Pattern '{local}@moved.{domain}' -WhatIf
.\forwards.ps1 -Action Remove -Path .\mailboxes.jsonl
#>
[CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'High')]
param(
    [Parameter(Mandatory)] [ValidateSet('Set', 'Show', 'Remove')] [string] $Action,
    [Parameter(Mandatory)] [string] $Path,
    # identity.coexistence of the configuration; not used for lines that have a forward_to
    [string] $Pattern
)
$ErrorActionPreference = 'Stop'

# One object for each mailbox: id, address, and where its mail goes.
function Read-Rows {
    $text = @(Get-Content -LiteralPath $Path -Encoding UTF8)
    if ($text[0].StartsWith('{')) {
        foreach ($line in $text) {
            $box = $line | ConvertFrom-Json
            if ($box.mailbox) { [pscustomobject]@{ Id = [guid] $box.mailbox; Address = $box.address; To = $box.forward_to } }
        }
        return
    }
    foreach ($row in ($text | ConvertFrom-Csv -Delimiter ';')) {
        [pscustomobject]@{ Id = [guid] $row.directory_id; Address = $row.address; To = $null }
    }
}

$rows = @(Read-Rows)
foreach ($row in $rows) {
    if (-not $row.To) {
        if (-not $Pattern) { throw 'the file has no coexistence addresses: want -Pattern' }
        $local, $domain = $row.Address -split '@', 2
        $row.To = $Pattern.Replace('{local}', $local).Replace('{domain}', $domain)
    }
    if ($row.To -notmatch '^[^@\s]+@[^@\s]+$') { throw "$($row.Address): $($row.To) is no address" }
}

$failed = 0
foreach ($row in $rows) {
    $result = [ordered]@{ Address = $row.Address; Id = $row.Id; Wanted = $row.To; Forward = $null; AlsoDelivered = $null; State = $null }
    try {
        # By id: a name or an address could be somebody else's.
        $box = Get-Mailbox -Identity $row.Id.ToString()
        if ([guid] $box.Guid.ToString() -ne $row.Id) { throw "Exchange found the object $($box.Guid)" }
        if (@($box.EmailAddresses | ForEach-Object { [string] $_ }) -notcontains "smtp:$($row.Address)") {
            throw "it doesn't have this address, but $($box.PrimarySmtpAddress): the file pairs two mailboxes"
        }
        # ForwardingAddress names a recipient object and goes before ForwardingSmtpAddress.
        if ($box.ForwardingAddress) { throw "it forwards to the recipient $($box.ForwardingAddress): decide by hand" }
        $now = ([string] $box.ForwardingSmtpAddress) -replace '^smtp:', ''
        if ($now -and $now -ne $row.To) { throw "it forwards to $now, which mailcutover didn't set: decide by hand" }

        if ($Action -eq 'Set' -and $PSCmdlet.ShouldProcess($row.Address, "forward to $($row.To)")) {
            # $false: the mail is forwarded, and not delivered here as well.
            Set-Mailbox -Identity $row.Id.ToString() -ForwardingSmtpAddress $row.To -DeliverToMailboxAndForward $false
        }
        if ($Action -eq 'Remove' -and $now -and $PSCmdlet.ShouldProcess($row.Address, "don't forward to $now any more")) {
            Set-Mailbox -Identity $row.Id.ToString() -ForwardingSmtpAddress $null -DeliverToMailboxAndForward $false
        }

        # Read back: what counts is what Exchange says now.
        $box = Get-Mailbox -Identity $row.Id.ToString()
        $now = ([string] $box.ForwardingSmtpAddress) -replace '^smtp:', ''
        $result.Forward, $result.AlsoDelivered = $now, $box.DeliverToMailboxAndForward
        $right = switch ($Action) {
            'Set' { $now -eq $row.To -and -not $box.DeliverToMailboxAndForward }
            'Remove' { -not $now }
            default { $true }
        }
        if (-not $right -and -not $WhatIfPreference) { throw 'it does not read back as it was set' }
        $result.State = if (-not $now) { 'no forward' } elseif ($box.DeliverToMailboxAndForward) { 'forwarded and delivered' } else { 'forwarded' }
    }
    catch {
        $failed++
        $result.State = "FAILED: $($_.Exception.Message)"
    }
    [pscustomobject] $result
}
Write-Verbose "$($rows.Count) mailboxes, $failed failed" -Verbose
if ($failed) { exit 1 }
