//! GPUs: which there are, and which is whose.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::RunError;

/// How long a vendor's tool may take.
const TOOL_TIMEOUT: Duration = Duration::from_secs(5);

/// Who made a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Found by `nvidia-smi`.
    Nvidia,
    /// Found by `rocm-smi`.
    Amd,
}

/// A GPU of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Who made it.
    pub vendor: Vendor,
    /// What names it for its driver.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Bytes of memory.
    pub memory: u64,
}

/// Asks the vendors' tools; where there is none there are no GPUs.
pub(super) async fn find() -> Vec<Gpu> {
    let nvidia = ["--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"];
    let amd = ["--showproductname", "--showmeminfo", "vram", "--json"];
    let mut gpus = tool("nvidia-smi", &nvidia).await.map(|text| nvidia_gpus(&text)).unwrap_or_default();
    gpus.extend(tool("rocm-smi", &amd).await.map(|text| amd_gpus(&text)).unwrap_or_default());
    gpus
}

async fn tool(name: &str, args: &[&str]) -> Option<String> {
    let output = tokio::process::Command::new(name).args(args).kill_on_drop(true).output();
    let output = tokio::time::timeout(TOOL_TIMEOUT, output).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One line a GPU: its UUID, its name, its mebibytes.
fn nvidia_gpus(text: &str) -> Vec<Gpu> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split(',').map(str::trim);
        let (id, name, memory) = (fields.next()?, fields.next()?, fields.next()?);
        // Some boards do not tell their memory: `[N/A]`.
        let memory = memory.parse::<u64>().unwrap_or(0) << 20;
        id.starts_with("GPU-").then(|| Gpu { vendor: Vendor::Nvidia, id: id.into(), name: name.into(), memory })
    });
    lines.collect()
}

/// An object a card, its keys differing between versions of the tool.
fn amd_gpus(text: &str) -> Vec<Gpu> {
    let Ok(serde_json::Value::Object(cards)) = serde_json::from_str(text) else { return Vec::new() };
    let cards = cards.iter().filter_map(|(card, fields)| {
        let index = card.strip_prefix("card")?;
        let field = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)?.as_str());
        let name = field(&["Card Series", "Card series", "Card Model", "Card model"]).unwrap_or("AMD GPU");
        let memory = field(&["VRAM Total Memory (B)"]).and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Gpu { vendor: Vendor::Amd, id: index.into(), name: name.into(), memory })
    });
    cards.collect()
}

/// The GPUs, each given to one run at a time.
#[derive(Debug)]
pub(super) struct Gpus {
    all: Vec<Gpu>,
    free: Mutex<Vec<usize>>,
}

impl Gpus {
    pub(super) fn new(all: Vec<Gpu>) -> Self {
        let free = Mutex::new((0..all.len()).rev().collect());
        Self { all, free }
    }

    pub(super) fn all(&self) -> &[Gpu] {
        &self.all
    }

    /// So many that nobody has.
    pub(super) fn take(&self, count: u32) -> Result<Taken<'_>, RunError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = free.len().checked_sub(count as usize);
        let keep = keep.ok_or_else(|| RunError::Node(format!("{count} GPUs are wanted, {} are free", free.len())))?;
        Ok(Taken { gpus: self, indices: free.split_off(keep) })
    }
}

impl Gpus {
    /// Those that a run had in a former life of the node.
    pub(super) fn take_again(&self, ids: &[String]) -> Result<Taken<'_>, RunError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let indices: Vec<usize> = free.iter().copied().filter(|index| ids.contains(&self.all[*index].id)).collect();
        if indices.len() != ids.len() {
            return Err(RunError::Node("a GPU that it had is not there any more".into()));
        }
        free.retain(|index| !indices.contains(index));
        Ok(Taken { gpus: self, indices })
    }
}

/// GPUs of one run; they are free again when this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    gpus: &'a Gpus,
    indices: Vec<usize>,
}

impl<'a> Taken<'a> {
    pub(super) fn ids(&self) -> Vec<&'a Gpu> {
        self.indices.iter().map(|index| &self.gpus.all[*index]).collect()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.gpus.free.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.indices);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nvidia_smi_prints_is_understood() {
        let text = "GPU-2b7c1a52-8f5e-1f0f-95b7-d1d8f2a6f7c3, NVIDIA H200, 143771\n\
                    GPU-97aa4ab3-1de1-4b3c-9c1c-6a1a0d0d6f11, Tesla T4, 15360\nGPU-x, Orin (nvgpu), [N/A]\n";
        let gpus = nvidia_gpus(text);
        assert_eq!(gpus.len(), 3);
        assert_eq!((gpus[0].name.as_str(), gpus[0].memory), ("NVIDIA H200", 143_771 << 20));
        assert_eq!(gpus[2].memory, 0);
        assert!(nvidia_gpus("No devices were found\n").is_empty());
        assert!(nvidia_gpus("NVIDIA-SMI has failed because it couldn't communicate with the driver\n").is_empty());
    }

    #[test]
    fn what_rocm_smi_prints_is_understood() {
        let text = r#"{"card0": {"VRAM Total Memory (B)": "68702699520", "VRAM Total Used Memory (B)": "10960896",
            "Card series": "AMD INSTINCT MI250", "Card model": "0x0b0c", "Card vendor": "Advanced Micro Devices"},
            "system": {"Driver version": "6.2.4"}}"#;
        let gpus = amd_gpus(text);
        assert_eq!(gpus.len(), 1);
        assert_eq!((gpus[0].name.as_str(), gpus[0].memory), ("AMD INSTINCT MI250", 68_702_699_520));
        assert!(amd_gpus("WARNING: No AMD GPUs specified\n").is_empty());
    }

    #[test]
    fn a_gpu_is_given_to_one_run_at_a_time() {
        let gpu = |id: &str| Gpu { vendor: Vendor::Nvidia, id: id.into(), name: "g".into(), memory: 0 };
        let gpus = Gpus::new(vec![gpu("a"), gpu("b")]);
        let first = gpus.take(1).expect("one is free");
        let second = gpus.take(1).expect("another is free");
        assert_ne!(first.ids()[0].id, second.ids()[0].id);
        assert!(gpus.take(1).is_err());
        drop(first);
        assert!(gpus.take(1).is_ok());
    }
}
