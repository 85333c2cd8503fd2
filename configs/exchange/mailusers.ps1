<#
.SYNOPSIS
Turns mailboxes whose way back is closed into mail users, shows them, or gives them their mailboxes again.

.DESCRIPTION
For Exchange Server 2016 and 2019, in the Exchange Management Shell. NOT RUN AGAINST A REAL EXCHANGE: read it, adapt it, try
it with -WhatIf and then on a test mailbox.

ONLY AFTER `mailcutover agency finalise`: a mail user has no mailbox to go back to, and whoever sends mail to the agency by
Exchange's address book reaches the external address from then on. Until then forwards do (forwards.ps1).

What a mailbox had is written to the state file first, and -Action Remove works from it alone: keep it. Exchange keeps a
disabled mailbox for as long as its database's MailboxRetention says (30 days unless set).

.EXAMPLE
.\mailusers.ps1 -Action Set -Path .\health-0001.csv -Pattern '{local}@moved.{domain}' -State .\health.json -WhatIf
.\mailusers.ps1 -Action Show -State .\health.json
.\mailusers.ps1 -Action Remove -State .\health.json
#>
[CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'High')]
param(
    [Parameter(Mandatory)] [ValidateSet('Set', 'Show', 'Remove')] [string] $Action,
    [string] $Path,    # for Set: a generated list, CSV with semicolons
    [string] $Pattern, # for Set: of the external addresses
    [Parameter(Mandatory)] [string] $State
)
$ErrorActionPreference = 'Stop'

$known = @()
if (Test-Path -LiteralPath $State) { $known = @(Get-Content -LiteralPath $State -Encoding UTF8 | ForEach-Object { $_ | ConvertFrom-Json }) }

switch ($Action) {
    'Set' {
        foreach ($row in (Get-Content -LiteralPath $Path -Encoding UTF8 | ConvertFrom-Csv -Delimiter ';')) {
            $id = ([guid] $row.directory_id).ToString()
            if ($known | Where-Object { $_.Id -eq $id }) {
                # Done before, or begun by a run that was cut off: what is missing then, its line in the state file has.
                if ((Get-Recipient -Identity $id -ErrorAction SilentlyContinue).RecipientType -ne 'MailUser') {
                    Write-Warning "$($row.address): an earlier run began it and it is no mail user: do the rest by hand, from the state file"
                }
                continue
            }
            $box = Get-Mailbox -Identity $id
            if ($box.Guid.ToString() -ne $id -or [string] $box.PrimarySmtpAddress -ne $row.address) {
                throw "$($row.address): its mailbox is $($box.Guid) with $($box.PrimarySmtpAddress): the list pairs two mailboxes"
            }
            $local, $domain = $row.address -split '@', 2
            $external = $Pattern.Replace('{local}', $local).Replace('{domain}', $domain)
            if (-not $PSCmdlet.ShouldProcess($row.address, "disable the mailbox, mail user of $external")) { continue }
            [pscustomobject]@{
                Id = $id; Address = $row.address; External = $external; Alias = $box.Alias; Database = [string] $box.Database
                ExchangeGuid = $box.ExchangeGuid.ToString(); LegacyExchangeDN = $box.LegacyExchangeDN
                EmailAddresses = @($box.EmailAddresses | ForEach-Object { [string] $_ })
            } | ConvertTo-Json -Compress | Add-Content -LiteralPath $State -Encoding UTF8
            Disable-Mailbox -Identity $id -Confirm:$false
            # MIME with text and HTML, whatever the sender's Outlook would like.
            Enable-MailUser -Identity $id -ExternalEmailAddress $external -Alias $box.Alias -PrimarySmtpAddress $row.address `
                -MessageFormat Mime -MessageBodyFormat TextAndHtml -UsePreferMessageFormat $true | Out-Null
            # The old addresses stay, and the old X.500 name, by which Outlook answers to old messages.
            $keep = @($box.EmailAddresses | ForEach-Object { [string] $_ } | Where-Object { $_ -clike 'smtp:*' -or $_ -like 'X500:*' })
            Set-MailUser -Identity $id -EmailAddressPolicyEnabled $false -EmailAddresses @{ Add = $keep + "X500:$($box.LegacyExchangeDN)" }
        }
    }
    'Show' {
        foreach ($was in $known) {
            $r = Get-Recipient -Identity $was.Id
            [pscustomobject]@{ Address = $was.Address; Type = $r.RecipientTypeDetails; External = $r.ExternalEmailAddress; Was = $was.External }
        }
    }
    'Remove' {
        foreach ($was in $known) {
            if ((Get-Recipient -Identity $was.Id).RecipientType -ne 'MailUser') { continue } # has its mailbox
            if (-not $PSCmdlet.ShouldProcess($was.Address, 'disable the mail user, connect the mailbox again')) { continue }
            Disable-MailUser -Identity $was.Id -Confirm:$false
            # The store has to notice that the mailbox belongs to nobody, before it can be connected.
            Update-StoreMailboxState -Database $was.Database -Identity $was.ExchangeGuid -Confirm:$false
            Connect-Mailbox -Identity $was.ExchangeGuid -Database $was.Database -User $was.Id -Alias $was.Alias -Confirm:$false
            Set-Mailbox -Identity $was.Id -EmailAddressPolicyEnabled $false -EmailAddresses ($was.EmailAddresses + "X500:$($was.LegacyExchangeDN)")
        }
    }
}
