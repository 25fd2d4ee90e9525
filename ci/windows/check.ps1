# Parses, lints and tests the Windows script. Runs in Windows PowerShell 5.1 and in PowerShell 7; CI runs it in both:
#   powershell -NoProfile -ExecutionPolicy Bypass -File ci/windows/check.ps1
#   pwsh -NoProfile -File ci/windows/check.ps1
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$root = (Resolve-Path -LiteralPath "$PSScriptRoot/../..").Path
$scripts = @("$root/plugin/dist/windows/flatnet-route.ps1", "$PSScriptRoot/check.ps1", "$PSScriptRoot/flatnet-route.Tests.ps1")
Write-Output "ci/windows: PowerShell $($PSVersionTable.PSVersion)"

$failed = 0
foreach ($script in $scripts) {
    $mistakes = $null
    [System.Management.Automation.Language.Parser]::ParseFile($script, [ref] $null, [ref] $mistakes) | Out-Null
    foreach ($mistake in $mistakes) { Write-Output "${script}: $mistake"; $failed++ }
    # Windows PowerShell reads a script without a byte order mark in the machine's old code page.
    if ([System.IO.File]::ReadAllText($script) -match '[^\x00-\x7F]') { Write-Output "${script}: holds more than ASCII"; $failed++ }
}

# The runner has both modules; a machine that lacks them gets them for this user.
foreach ($module in @{ Name = 'Pester'; Version = '5.5.0' }, @{ Name = 'PSScriptAnalyzer'; Version = '1.21.0' }) {
    $have = Get-Module -ListAvailable -Name $module.Name | Where-Object { $_.Version -ge [version] $module.Version -and $_.Version.Major -lt 6 }
    if (-not $have) {
        Install-Module -Name $module.Name -MinimumVersion $module.Version -MaximumVersion 5.99.99 -Scope CurrentUser -Force -SkipPublisherCheck
    }
    Import-Module -Name $module.Name -MinimumVersion $module.Version -MaximumVersion 5.99.99
}

foreach ($script in $scripts) {
    foreach ($finding in Invoke-ScriptAnalyzer -Path $script -Settings "$PSScriptRoot/lint.psd1") {
        Write-Output "${script}:$($finding.Line): $($finding.RuleName): $($finding.Message)"
        $failed++
    }
}
if ($failed) { Write-Output "ci/windows: $failed findings"; exit 1 }

$configuration = New-PesterConfiguration
$configuration.Run.Path = "$PSScriptRoot/flatnet-route.Tests.ps1"
$configuration.Run.PassThru = $true
$configuration.Output.Verbosity = 'Detailed'
$run = Invoke-Pester -Configuration $configuration
Write-Output "$($run.PassedCount) passed, $($run.FailedCount) failed, $($run.SkippedCount) skipped"
if ($run.Result -ne 'Passed' -or $run.PassedCount -eq 0) { exit 1 }
