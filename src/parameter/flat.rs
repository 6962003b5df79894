//! Values of parameters, one behind the other in one buffer for each tower.

use std::ops::Range;
use std::sync::Arc;

use dfdx::prelude::*;

use super::ranges::{Ranges, Values};
use super::{rounded, widened, Parameter, Tower};

/// Ranges begin at multiples of so many values: 256 bytes, what a GPU reads at its best.
const ALIGNMENT: usize = 64;

/// Ranges of the parameters in the buffers of their towers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// In the order of the list of parameters; none of those whose values are elsewhere.
    places: Vec<(Tower, Option<Range<usize>>)>,
    lengths: [usize; Tower::ALL.len()],
}

impl Layout {
    /// Those parameters side by side that are `held`, by their places in the list.
    pub fn new(parameters: &[Parameter], held: impl Fn(usize) -> bool) -> Layout {
        let mut lengths = [0; Tower::ALL.len()];
        let places = parameters.iter().enumerate().map(|(place, parameter)| {
            let end: &mut usize = &mut lengths[parameter.tower as usize];
            let range = held(place).then(|| {
                let start = end.next_multiple_of(ALIGNMENT);
                *end = start + parameter.len();
                start..*end
            });
            (parameter.tower, range)
        });
        Layout { places: places.collect(), lengths }
    }

    /// The range of the parameter at a place, where its values are here.
    pub fn range(&self, place: usize) -> Option<Range<usize>> {
        self.places[place].1.clone()
    }

    /// Places and ranges of the parameters of a tower that are here.
    pub fn ranges(&self, tower: Tower) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let all = self.places.iter().enumerate();
        all.filter(move |(_, (of, _))| *of == tower)
            .filter_map(|(place, (_, range))| Some((place, range.clone()?)))
    }

    /// Values in the buffer of a tower, those between parameters included.
    pub fn len(&self, tower: Tower) -> usize {
        self.lengths[tower as usize]
    }
}

/// Values of parameters: weights, gradients or moments. What lies between two parameters is zero.
///
/// A clone shares the buffers until one of both is written to.
#[derive(Debug, Clone)]
pub struct Flat<E: Dtype, D: Storage<E>> {
    device: D,
    layout: Arc<Layout>,
    towers: [Arc<Values<E, D>>; Tower::ALL.len()],
}

impl<E: Dtype, D: Storage<E>> Flat<E, D> {
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    pub fn device(&self) -> &D {
        &self.device
    }

    /// True if the values of the parameter at a place are here.
    pub fn holds(&self, place: usize) -> bool {
        self.layout.range(place).is_some()
    }

    /// The buffer of a tower.
    pub fn tower(&self, tower: Tower) -> &Arc<Values<E, D>> {
        &self.towers[tower as usize]
    }

    /// The buffers of all towers, copies of their own where they were shared.
    pub fn towers_mut(&mut self) -> [&mut Values<E, D>; Tower::ALL.len()] {
        self.towers.each_mut().map(Arc::make_mut)
    }

    /// The buffer of a tower, a copy of its own where it was shared.
    pub fn tower_mut(&mut self, tower: Tower) -> &mut Values<E, D> {
        Arc::make_mut(&mut self.towers[tower as usize])
    }
}

impl<E: Dtype, D: Ranges<E>> Flat<E, D> {
    /// Values that lie as a layout says, in buffers of its sizes.
    pub fn new(device: &D, layout: Arc<Layout>, towers: [Values<E, D>; Tower::ALL.len()]) -> Self {
        Flat { device: device.clone(), layout, towers: towers.map(Arc::new) }
    }

    /// The buffers of all towers.
    pub fn into_towers(self) -> [Values<E, D>; Tower::ALL.len()] {
        self.towers.map(Arc::unwrap_or_clone)
    }

    /// Zeros.
    ///
    /// # Errors
    /// The device has no room.
    pub fn zeros(device: &D, layout: Arc<Layout>) -> Result<Self, D::Err> {
        let [image, text, loss] = Tower::ALL.map(|tower| device.allocate(layout.len(tower)));
        Ok(Flat::new(device, layout, [image?, text?, loss?]))
    }

    /// Values of the parameter at a place; zeros where they are not here.
    ///
    /// # Errors
    /// The device fails.
    pub fn read(&self, place: usize) -> Result<Vec<E>, D::Err> {
        let mut values = Vec::new();
        self.show(place, &mut |shown| values = shown.to_vec())?;
        Ok(values)
    }

    /// Shows the values of the parameter at a place; nothing where they are not here.
    ///
    /// # Errors
    /// The device fails.
    pub fn show(&self, place: usize, see: &mut dyn FnMut(&[E])) -> Result<(), D::Err> {
        let (tower, range) = &self.layout.places[place];
        match range {
            Some(range) => self.device.show(self.tower(*tower), range.clone(), see),
            None => {
                see(&[]);
                Ok(())
            }
        }
    }

    /// Overwrites the parameter at a place, where it is here.
    ///
    /// # Errors
    /// The device fails.
    pub fn write(&mut self, place: usize, values: &[E]) -> Result<(), D::Err> {
        let (tower, range) = self.layout.places[place].clone();
        let Some(range) = range else { return Ok(()) };
        assert_eq!(range.len(), values.len(), "values of parameter {place}");
        let device = self.device.clone();
        device.write(self.tower_mut(tower), range.start, values)
    }

    /// As [`read`](Self::read), in single precision.
    ///
    /// # Errors
    /// The device fails.
    pub fn read_f32(&self, place: usize) -> Result<Vec<f32>, D::Err> {
        let mut values = Vec::new();
        self.show(place, &mut |shown| values = shown.iter().map(|&x| widened(x) as f32).collect())?;
        Ok(values)
    }

    /// As [`write`](Self::write), from single precision.
    ///
    /// # Errors
    /// The device fails.
    pub fn write_f32(&mut self, place: usize, values: &[f32]) -> Result<(), D::Err> {
        let values: Vec<E> = values.iter().map(|&x| rounded(f64::from(x))).collect();
        self.write(place, &values)
    }

    /// A tensor of the parameter at a place, which has to be here.
    ///
    /// # Errors
    /// The device fails.
    pub fn tensor(
        &self,
        place: usize,
        shape: (usize, usize),
    ) -> Result<Tensor<(usize, usize), E, D>, D::Err> {
        let (tower, range) = self.layout.places[place].clone();
        self.device.tensor(self.tower(tower), range.unwrap_or_default(), shape)
    }

    /// Adds a gradient to that of the parameter at a place; its memory may be freed.
    ///
    /// # Errors
    /// The device fails.
    pub fn add(&mut self, place: usize, gradient: &mut Values<E, D>) -> Result<(), D::Err> {
        let (tower, range) = self.layout.places[place].clone();
        let Some(range) = range else { return Ok(()) };
        let device = self.device.clone();
        device.add(self.tower_mut(tower), range, gradient)
    }

    /// Moves all values by a share of the way to those of another that is laid out alike.
    ///
    /// # Errors
    /// The device fails.
    pub fn move_towards(&mut self, goal: &Self, share: f64) -> Result<(), D::Err> {
        assert_eq!(self.layout, goal.layout, "one layout");
        let device = self.device.clone();
        for tower in Tower::ALL {
            for (_, range) in goal.layout.ranges(tower) {
                device.move_towards(self.tower_mut(tower), range, goal.tower(tower), share)?;
            }
        }
        Ok(())
    }

    /// Storage of its own of the parameter at a place, which has to be here.
    ///
    /// # Errors
    /// The device fails.
    pub fn cut(&self, place: usize) -> Result<Values<E, D>, D::Err> {
        let (tower, range) = self.layout.places[place].clone();
        self.device.cut(self.tower(tower), range.unwrap_or_default())
    }

    /// Overwrites the parameter at a place, which has to be here, with storage of its size.
    ///
    /// # Errors
    /// The device fails.
    pub fn paste(&mut self, place: usize, values: &Values<E, D>) -> Result<(), D::Err> {
        let (tower, range) = self.layout.places[place].clone();
        let device = self.device.clone();
        device.paste(self.tower_mut(tower), range.unwrap_or_default().start, values)
    }

    /// The same values of those parameters that another layout holds too.
    ///
    /// # Errors
    /// The device fails.
    pub fn laid_out(&self, layout: Arc<Layout>) -> Result<Self, D::Err> {
        let mut other = Flat::zeros(&self.device, layout)?;
        for place in 0..other.layout.places.len() {
            if self.holds(place) && other.holds(place) {
                other.paste(place, &self.cut(place)?)?;
            }
        }
        Ok(other)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Init, Role};
    use super::*;

    fn parameters() -> Vec<Parameter> {
        let of = |tower, len: usize| Parameter {
            name: format!("{tower:?}.{len}"),
            tower,
            role: Role::Weight,
            shape: vec![len],
            init: Init::Constant(0.0),
            rounded: true,
        };
        vec![
            of(Tower::Image, 70),
            of(Tower::Image, 3),
            of(Tower::Text, 5),
            of(Tower::Image, 64),
            of(Tower::Loss, 1),
        ]
    }

    #[test]
    fn parameters_of_a_tower_lie_side_by_side_and_begin_at_multiples_of_64() {
        let all = Layout::new(&parameters(), |_| true);
        let ranges: Vec<_> = (0..5).map(|place| all.range(place).unwrap()).collect();
        assert_eq!(ranges, [0..70, 128..131, 0..5, 192..256, 0..1]);
        assert_eq!(Tower::ALL.map(|tower| all.len(tower)), [256, 5, 1]);
        let some = Layout::new(&parameters(), |place| place != 0);
        assert_eq!((some.range(0), some.range(1), some.range(3)), (None, Some(0..3), Some(64..128)));
        assert_eq!(some.ranges(Tower::Image).collect::<Vec<_>>(), [(1, 0..3), (3, 64..128)]);
    }

    #[test]
    fn values_are_read_where_they_were_written_and_move_to_another_layout() {
        let (device, list) = (Cpu::default(), parameters());
        let mut flat = Flat::<f32, Cpu>::zeros(&device, Arc::new(Layout::new(&list, |_| true))).unwrap();
        for (place, parameter) in list.iter().enumerate() {
            let values: Vec<f32> = (0..parameter.len()).map(|i| (100 * place + i) as f32).collect();
            flat.write(place, &values).unwrap();
        }
        let before = flat.clone();
        let mut two = Ranges::<f32>::allocate(&device, 3).unwrap();
        two.iter_mut().for_each(|x: &mut f32| *x = 2.0);
        flat.add(1, &mut two).unwrap();
        assert_eq!(
            (flat.read(1).unwrap(), before.read(1).unwrap()),
            (vec![102.0, 103.0, 104.0], vec![100.0, 101.0, 102.0])
        );
        let moved = flat.laid_out(Arc::new(Layout::new(&list, |place| place != 0))).unwrap();
        assert!(moved.read(0).unwrap().is_empty());
        (1..5).for_each(|place| assert_eq!(moved.read(place).unwrap(), flat.read(place).unwrap()));
        assert_eq!(flat.tensor(3, (2, 32)).unwrap().as_vec(), flat.read(3).unwrap());
    }
}
